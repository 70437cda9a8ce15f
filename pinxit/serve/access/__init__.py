"""Protects the studio: who may ask, from where, and how much.

`guard` composes the layers of pure ASGI middleware. Every request passes them before the app sees
it, and every answer passes them on its way out, errors included.
"""
