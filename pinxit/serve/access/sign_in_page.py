"""The page on which a browser enters the token. It needs no file, since files need the token."""

from __future__ import annotations

from html import escape

from pinxit.serve.access.content_policy import style_policy

SIGN_IN = "/studio/sign_in"
"""The path that the form sends the token to."""
STYLE = """
:root {
  color-scheme: light dark;
  --paper: #faf8f4; --card: #fff; --ink: #23211e; --muted: #635e57; --line: #8d867b;
  --accent: #a93a24; --accent-ink: #fff; --bad: #a8211f;
}
@media (prefers-color-scheme: dark) {
  :root {
    --paper: #171614; --card: #21201d; --ink: #efece6; --muted: #aea79c; --line: #857e73;
    --accent: #f0937a; --accent-ink: #23110b; --bad: #ff9c92;
  }
}
* { box-sizing: border-box; }
body {
  margin: 0; min-height: 100vh; display: grid; place-items: center;
  background: var(--paper); color: var(--ink);
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", sans-serif;
}
main {
  width: min(24rem, calc(100vw - 2rem)); padding: 1.75rem; display: grid; gap: 1rem;
  background: var(--card); border-radius: 10px;
  box-shadow: 0 1px 2px rgb(0 0 0 / 8%), 0 4px 16px rgb(0 0 0 / 6%);
}
h1 { margin: 0; font-size: 1.35rem; font-weight: 650; }
p { margin: 0; color: var(--muted); font-size: .9rem; }
form { display: grid; gap: .5rem; }
label { font-size: .9rem; font-weight: 600; }
input, button { font: inherit; min-height: 2.6rem; padding: .4rem .75rem; border-radius: 8px; }
input { width: 100%; background: var(--card); color: var(--ink); border: 1px solid var(--line); }
button {
  margin-top: .25rem; border: 0; background: var(--accent); color: var(--accent-ink);
  font-weight: 600; cursor: pointer;
}
a { color: var(--accent); }
:focus-visible { outline: 2px solid var(--accent); outline-offset: 2px; }
[hidden] { display: none; }
.problem { color: var(--bad); font-weight: 600; }
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
<input name="user" value="studio" autocomplete="username" hidden>
<label for="token">Access token</label>
<input id="token" name="token" type="password" autocomplete="current-password"
 required autofocus>
<button type="submit">Sign in</button>
</form>
<p>The studio was started with this token. It is the value of <code>--token</code> or of
<code>PINXIT_TOKEN</code>. If you have signed in already, <a href="{home}">open the studio</a>.</p>
</main>
</html>
""".encode()
