"""`python -m llama_qna` is `llama-qna`."""

import sys

from llama_qna.cli import main

sys.exit(main())
