"""Trains a text-to-image model: the same as `pinxit train`, for example

python train_text_to_image.py --dataset_name scenes --batch_size 16 --image_size 64 \
    --model.use_stable_vae 1 --model.patch_size 1 --model.preset tiny --max_steps 2000 \
    --use_amp 0 --text_dropout_prob 0.1 --learning_rate 1e-3 --gradient_accumulation_steps 1 \
    --log_interval 20 --save_interval 500

Names are dotted or plain, booleans are 0, 1, true or false; `--help` lists everything.
"""

import sys

from pinxit import extensions
from pinxit.cli.main import guarded
from pinxit.cli.train import train_command

if __name__ == "__main__":
    command = "python train_text_to_image.py"

    def main() -> int:
        """Trains."""
        return train_command(extensions.take(sys.argv[1:]), restart=True, prog=command)

    raise SystemExit(guarded(main))
