"""The page on which a browser enters the token. It needs no file, since files need the token."""

from __future__ import annotations

from html import escape

from pinxit.serve.access.content_policy import style_policy

SIGN_IN = "/studio/sign_in"
"""The path that the form sends the token to."""
STYLE = """
:root { color-scheme: light dark; font: 16px/1.5 system-ui, sans-serif; }
body { margin: 0; min-height: 100vh; display: grid; place-items: center; }
main { width: min(22rem, calc(100vw - 2rem)); display: grid; gap: 1rem; }
h1 { margin: 0; font-size: 1.5rem; }
p { margin: 0; }
form { display: grid; gap: .5rem; }
input, button { font: inherit; padding: .6rem .8rem; border-radius: .5rem; }
input { border: 1px solid GrayText; }
button { border: 0; background: #3157d5; color: #fff; cursor: pointer; }
:focus-visible { outline: 3px solid #7c9bff; outline-offset: 2px; }
.problem { font-weight: 600; }
"""
"""The style of the page, which the policy allows by its hash."""
POLICY_OF_PAGE = style_policy(STYLE)
"""The Content-Security-Policy of the page."""


def sign_in_page(root_path: str, problem: str = "") -> bytes:
    """Returns the page. `problem` says why the last token was refused."""
    action, home = escape(root_path + SIGN_IN), escape(f"{root_path}/")
    alert = f'<p class="problem" role="alert">{escape(problem)}</p>' if problem else ""
    return f"""<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Pinxit studio: sign in</title>
<link rel="icon" href="data:,">
<style>{STYLE}</style>
<main>
<h1>Pinxit studio</h1>
{alert}
<form method="post" action="{action}">
<label for="token">Access token</label>
<input id="token" name="token" type="password" autocomplete="current-password"
 required autofocus>
<button type="submit">Sign in</button>
</form>
<p>The token is the one that the studio was started with. <a href="{home}">Signed in already?</a>
</p>
</main>
</html>
""".encode()
