"""The page in a browser: serves `page_layout` on this machine only, and lets nothing on it reach another."""

from __future__ import annotations

import os
import threading
from functools import partial

from llama_qna import UserError
from llama_qna.answering.answerer import Answerer
from llama_qna.project.variant import Variant
from llama_qna.serving.conversation import Desk

HOST, PORT = "127.0.0.1", 7860

# The browser itself refuses every other host, whatever a document or a model may write.
POLICY = "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; form-action 'self'; frame-ancestors 'self'"


def serve_page(variant: Variant, port: int = PORT, engine: str | None = None) -> None:
    """Serve the page until it is interrupted; prints its address once it can be opened.

    Args:
        engine: the address of a running engine, such as http://127.0.0.1:8000/v1. By default an engine at its usual
            address is used if it serves the variant, and the model in this process if not.

    Raises:
        UserError: the base model cannot be had, no engine serves the variant at `engine`, or the port cannot be used.
    """
    stay_offline()
    desk = Desk(variant.root, partial(answerer_at, engine))
    desk.answerer(variant.name)  # what is wrong with it is said before the page is there
    from llama_qna.serving.page_layout import build

    try:
        build(desk, variant.name).launch(server_port=port, prevent_thread_lock=True, **launch_options())
    except (OSError, OverflowError):
        raise UserError(f"port {port} cannot be used: choose another one with --port") from None
    print(f"{variant.name} answers at http://{HOST}:{port} (Ctrl+C stops it)", flush=True)
    threading.Event().wait()


def answerer_at(url: str | None, variant: Variant) -> Answerer:
    """The engine at an address; without one see `engine.answerer_for`.

    Raises:
        UserError: no engine serves the variant there, or the base model cannot be had.
    """
    from llama_qna.serving.engine_client import EngineAnswerer, answerer_for

    return EngineAnswerer(variant, url) if url else answerer_for(variant)


def stay_offline() -> None:
    """No analytics, no hub, no proxy between this machine and itself; call it before Gradio is imported."""
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    for name in ("NO_PROXY", "no_proxy"):
        os.environ[name] = ",".join(filter(None, [os.environ.get(name), HOST, "localhost"]))


def launch_options() -> dict:
    """What `launch` is given beside the port: this machine only, the system's fonts, and the policy."""
    from starlette.middleware import Middleware

    from llama_qna.serving.page_layout import CSS, theme

    return {
        "server_name": HOST,
        "share": False,
        "ssr_mode": False,
        "pwa": False,
        "mcp_server": False,
        "run_history": False,
        "footer_links": [],
        "quiet": True,
        "max_file_size": "1kb",  # the page takes no files
        "theme": theme(),
        "css": CSS,
        "app_kwargs": {"middleware": [Middleware(_Policy)]},
    }


class _Policy:
    """Adds the content security policy to every response (https://www.w3.org/TR/CSP3/)."""

    def __init__(self, app):
        self.app = app

    async def __call__(self, scope, receive, send):
        async def send_with_policy(message):
            if message["type"] == "http.response.start":
                policy = (b"content-security-policy", POLICY.encode())
                message = message | {"headers": [*message["headers"], policy]}
            await send(message)

        await self.app(scope, receive, send_with_policy)
