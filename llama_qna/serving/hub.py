"""What the Hugging Face hub wants to know of a model, and the way there."""

from __future__ import annotations

from pathlib import Path

from llama_qna import UserError, one_line


def require_access(repository: str) -> None:
    """Look at what can be known before a long export: the name, and whether anybody is logged in.

    Raises:
        UserError: the name is none of a repository, or there is no token.
    """
    from huggingface_hub import get_token
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    try:
        validate_repo_id(repository)
    except HFValidationError as error:
        raise UserError(f"--push {repository}: {_said(error)}") from None
    if not get_token():
        raise UserError("--push needs an account of the hub: run `hf auth login`, or set HF_TOKEN")


def push(folder: Path, repository: str) -> str:
    """Upload an export to a model repository on the hub; one that is not there yet is made private.

    Returns:
        The repository's address.

    Raises:
        UserError: no token, a name that is none, no network, or no right to write there.
    """
    import httpx2
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

    require_access(repository)
    try:
        api = HfApi()
        address = api.create_repo(repository, private=True, exist_ok=True)
        api.upload_folder(repo_id=repository, folder_path=folder, commit_message=f"{folder.name}, by llama-qna export")
        return str(address)
    except HfHubHTTPError as error:
        reason = {401: "the hub does not know this token", 403: "this account may not write there"}
        status = error.response.status_code
        raise UserError(f"--push {repository}: {reason.get(status, _said(error))} ({status})") from None
    except (httpx2.HTTPError, OSError) as error:
        raise UserError(f"--push {repository}: the hub cannot be reached ({_said(error)})") from None


def _said(error: Exception) -> str:
    return one_line(str(error)) or type(error).__name__
