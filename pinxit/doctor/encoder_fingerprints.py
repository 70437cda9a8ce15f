"""A child process that prints the fingerprints of a run's encoder weights as JSON.

It runs on the CPU and without network. Its only argument is the path of the run's ``config.json``.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path


def main(config: Path) -> dict[str, str]:
    """Returns the current fingerprints under the names that checkpoints use for them."""
    from pinxit import extensions
    from pinxit.encoders.autoencoder import load_autoencoder
    from pinxit.encoders.fingerprint import encoder_fingerprints
    from pinxit.encoders.text_encoder_catalogue import load_text_encoder
    from pinxit.train.run_folder import RunFolder, saved_config

    extensions.load()
    settings = saved_config(RunFolder(config.parent))
    dtype = settings.encoder_dtype
    text = load_text_encoder(
        settings.text_encoder, max_tokens=settings.text_max_tokens, dtype=dtype
    )
    return encoder_fingerprints(text, load_autoencoder(settings.autoencoder, dtype=dtype))


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]))))
