"""Text to image from scratch on one page: scenes, latents, a transformer, flow matching, pictures.

    python examples/minimal.py              # minimal.png, in a few minutes on two CPU cores
    python examples/minimal.py --steps 200  # quicker and worse: the one dial

The network and the encoders are the package's own; the training loop is written out here, and it is
all there is to it. What `pinxit train` adds is what a long run on real data needs: checkpoints,
exact resume, many devices, mixed precision, averaged weights, evaluation, reports.
"""

import argparse
import textwrap
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from PIL import Image, ImageDraw

from pinxit.arrays import Conditioning, to_pixels, to_uint8
from pinxit.data.scenes.dataset import Scenes
from pinxit.encoders.autoencoder import load_autoencoder
from pinxit.encoders.text_encoder_catalogue import load_text_encoder
from pinxit.models.transformer import Transformer, preset

parser = argparse.ArgumentParser(description="Text to image from scratch on one page.")
parser.add_argument("--steps", type=int, default=1500, help="training steps: the one dial")
parser.add_argument("--out", type=Path, default=Path("minimal.png"), help="the grid of pictures")
dial = parser.parse_args()

BATCH = 16  # pictures in one training step
IMAGES = min(8_000, BATCH * dial.steps)  # training pictures; each is seen about three times
LEARNING_RATE = 1e-3  # the peak; it rises over the first steps and falls to zero at the end
CAPTION_DROPOUT = 0.1  # share of samples that are trained without their caption
GUIDANCE_SCALE = 3.0  # how closely the sampler follows the prompt; 1 is off
SAMPLER_STEPS = 25
COLUMNS, ROWS = 4, 3  # of the grid

# --- Data: pictures of landscapes, and captions that describe them ------------------------------
# scenes[i] is a pure function of i. The held-out prompts name combinations never trained on.

scenes = Scenes(length=IMAGES, split="train", image_size=64)
prompts = [Scenes(split="heldout").caption(i) for i in range(COLUMNS * ROWS)]

# --- Encoders: both are frozen, so each picture and each caption is encoded once ----------------
# The autoencoder turns 64 x 64 x 3 pixels into 8 x 8 x 16 latents with a standard deviation of
# about 1, and back; the network lives in that smaller space (latent diffusion, Rombach et al. 2021,
# arXiv:2112.10752). The text encoder, a small CLIP, turns a caption into a row of 48 tokens.

autoencoder = load_autoencoder("tiny")
text_encoder = load_text_encoder("tiny")
to_latents = jax.jit(lambda images: autoencoder.encode(autoencoder.params, images))


def encoded(start: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Latents (b h w c), caption tokens (b l e) and their mask (b l) of BATCH examples."""
    examples = [scenes[i] for i in range(start, start + BATCH)]
    latents = to_latents(to_pixels(np.stack([example.image for example in examples])))
    text = text_encoder([example.caption for example in examples])
    return np.asarray(latents), np.asarray(text.tokens), np.asarray(text.mask)


begun = time.perf_counter()
parts = [encoded(start) for start in range(0, IMAGES, BATCH)]
latents, tokens, mask = (np.concatenate(part) for part in zip(*parts, strict=True))
null = text_encoder([""])  # the empty caption: what the model is told when it is told nothing
print(f"{IMAGES} pictures and captions encoded in {time.perf_counter() - begun:.0f} s")

# --- Model: a transformer from (x_t, t, caption) to a velocity ----------------------------------
# Every latent cell is a token. Image tokens attend to themselves and to the caption's tokens; the
# time enters as a shift, a scale and a gate of every block (adaLN-zero, Peebles & Xie 2022,
# arXiv:2212.09748). At first the last layer is zero, so the loss starts at what there is to learn.

config = preset("tiny", in_channels=latents.shape[-1], context_dim=tokens.shape[-1])
graph, params = nnx.split(Transformer(config, rngs=nnx.Rngs(0)))
print(f"{sum(leaf.size for leaf in jax.tree.leaves(params)) / 1e6:.1f} million parameters")


def velocity(params: nnx.State, x_t: jax.Array, t: jax.Array, text: Conditioning) -> jax.Array:
    """What the network predicts."""
    return nnx.merge(graph, params)(x_t, t, text)


# --- Loss: flow matching ------------------------------------------------------------------------
# A straight path leads from the data (t = 0) to noise (t = 1), and its velocity is constant:
#
#     x_t = (1 - t) latents + t noise          d x_t / d t = noise - latents
#
# The network sees x_t and t and predicts the velocity. Many paths cross in one point, so the best
# it can predict is their mean, and that mean is what carries noise to data (Lipman et al. 2022,
# arXiv:2210.02747; Liu et al. 2022, arXiv:2209.03003):
#
#     loss = mean of |network(x_t, t, caption) - (noise - latents)|^2
#
# Times are drawn from a logit-normal, more often in the middle than at the ends, where the task is
# easy (Esser et al. 2024, arXiv:2403.03206).


def loss_fn(params: nnx.State, key: jax.Array, latents: jax.Array, text: Conditioning) -> jax.Array:
    noise_key, time_key, drop_key = jax.random.split(key, 3)
    noise = jax.random.normal(noise_key, latents.shape)
    t = jax.nn.sigmoid(0.5 + jax.random.normal(time_key, latents.shape[:1]))
    x_t = (1 - t[:, None, None, None]) * latents + t[:, None, None, None] * noise

    dropped = jax.random.bernoulli(drop_key, CAPTION_DROPOUT, t.shape)
    text = Conditioning(
        tokens=jnp.where(dropped[:, None, None], null.tokens, text.tokens),
        mask=jnp.where(dropped[:, None], null.mask, text.mask),
    )
    return jnp.mean(jnp.square(velocity(params, x_t, t, text) - (noise - latents)))


# --- Optimiser and training step ----------------------------------------------------------------

schedule = optax.warmup_cosine_decay_schedule(0.0, LEARNING_RATE, dial.steps // 20, dial.steps)
optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(schedule, b2=0.99))
state = optimizer.init(params)


@jax.jit
def train_step(params, state, key, latents, text):
    loss, gradients = jax.value_and_grad(loss_fn)(params, key, latents, text)
    updates, state = optimizer.update(gradients, state, params)
    return optax.apply_updates(params, updates), state, loss


rng, begun, losses = np.random.default_rng(0), time.perf_counter(), []
for step in range(dial.steps):
    rows = rng.integers(0, IMAGES, BATCH)
    text = Conditioning(tokens=tokens[rows], mask=mask[rows])
    key = jax.random.fold_in(jax.random.key(0), step)
    params, state, loss = train_step(params, state, key, latents[rows], text)
    losses.append(float(loss))
    if (step + 1) % 100 == 0 or step + 1 == dial.steps:
        seconds = time.perf_counter() - begun
        left = seconds / (step + 1) * (dial.steps - step - 1)
        mean = np.mean(losses[-100:])
        print(f"step {step + 1}/{dial.steps}  loss {mean:.4f}  {left:.0f} s left", flush=True)

# --- Sampler: from noise, down the velocity field, to latents -----------------------------------
# Euler's method for dx / dt = velocity(x, t), from t = 1 to t = 0. Classifier-free guidance (Ho &
# Salimans 2022, arXiv:2207.12598) goes further in the direction in which the caption points:
#
#     guided = null + scale (conditional - null)


@jax.jit
def sample(params: nnx.State, noise: jax.Array, text: Conditioning) -> jax.Array:
    empty = jax.tree.map(lambda row, all_rows: jnp.broadcast_to(row, all_rows.shape), null, text)
    times = jnp.linspace(1.0, 0.0, SAMPLER_STEPS + 1)

    def euler(x: jax.Array, now_and_next: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, None]:
        now, following = now_and_next
        t = jnp.full(len(x), now)
        without = velocity(params, x, t, empty)
        guided = without + GUIDANCE_SCALE * (velocity(params, x, t, text) - without)
        return x + (following - now) * guided, None

    return jax.lax.scan(euler, noise, (times[:-1], times[1:]))[0]


noise = jax.random.normal(jax.random.key(1), (len(prompts), *latents.shape[1:]))
drawn = sample(params, noise, text_encoder(prompts))
pictures = to_uint8(autoencoder.decode(autoencoder.params, drawn))

# --- The grid: the first held-out prompts and one picture of each, none of them chosen ----------

CELL, TEXT = 192, 80
sheet = Image.new("RGB", (COLUMNS * CELL, ROWS * (CELL + TEXT)), "white")
for i, (prompt, picture) in enumerate(zip(prompts, pictures, strict=True)):
    left, top = i % COLUMNS * CELL, i // COLUMNS * (CELL + TEXT)
    large = Image.fromarray(picture).resize((CELL - 4, CELL - 4), Image.Resampling.LANCZOS)
    sheet.paste(large, (left + 2, top + 2))
    caption = "\n".join(textwrap.wrap(prompt, 30))
    ImageDraw.Draw(sheet).multiline_text((left + 4, top + CELL), caption, "black")
sheet.save(dial.out)
print(
    f"loss {losses[0]:.4f} at the first step, {np.mean(losses[-100:]):.4f} at the end: {dial.out}"
)
