"""The routes of the API."""

from __future__ import annotations

from fastapi import FastAPI

from pinxit.serve.images_api import image_routes, job_routes, model_routes
from pinxit.serve.studio import Studio


def add_to(app: FastAPI, studio: Studio) -> None:
    """Adds the routes of images, models and jobs."""
    for part in (image_routes, model_routes, job_routes):
        part.add_to(app, studio)
