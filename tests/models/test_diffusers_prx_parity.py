"""Our transformer against diffusers' `PRXTransformer2DModel`, same weights, same inputs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pinxit.arrays import Conditioning
from pinxit.models.diffusers_prx import from_prx, prx_config, to_prx
from pinxit.models.transformer import TransformerConfig, apply, init_params

pytestmark = pytest.mark.parity

LATENT = TransformerConfig(
    hidden_size=64, depth=3, num_heads=2, context_dim=24, modulation_rank=4, rope_theta=100.0
)
ODD_HEADS = TransformerConfig(
    hidden_size=36, depth=2, num_heads=2, context_dim=24, modulation_rank=0, mlp_ratio=2.0
)
PIXEL = TransformerConfig(
    hidden_size=64,
    depth=2,
    num_heads=2,
    context_dim=24,
    patch_size=4,
    in_channels=3,
    bottleneck_size=12,
    resolution_embeds=True,
    prediction="latents",
)
CASES = {"latent": LATENT, "odd heads": ODD_HEADS, "pixel": PIXEL}


def random_params(config):
    """Parameters of usual size with nothing at zero, so that every term counts."""
    params = init_params(config, jax.random.key(0))
    leaves, tree = jax.tree.flatten(params)
    keys = jax.random.split(jax.random.key(1), len(leaves))
    noise = [0.05 * jax.random.normal(k, x.shape) for k, x in zip(keys, leaves, strict=True)]
    return jax.tree.unflatten(tree, [x + n for x, n in zip(leaves, noise, strict=True)])


def inputs(config):
    rng = np.random.default_rng(2)
    x = rng.normal(size=(3, 16, 12, config.in_channels)).astype(np.float32)
    t = np.array([0.02, 0.43, 1.0], np.float32)
    tokens = rng.normal(size=(3, 7, config.context_dim)).astype(np.float32)
    mask = np.arange(7)[None, :] < np.array([[7], [3], [1]])
    return x, t, tokens, mask


def torch_forward(config, tensors, x, t, tokens, mask):
    torch = pytest.importorskip("torch")
    prx = pytest.importorskip("diffusers.models.transformers.transformer_prx")
    arguments = {k: v for k, v in prx_config(config).items() if not k.startswith("_")}
    model = prx.PRXTransformer2DModel(**arguments).eval()
    state = {name: torch.from_numpy(tensor.copy()) for name, tensor in tensors.items()}
    model.load_state_dict(state, strict=True)
    with torch.no_grad():
        output = model(
            hidden_states=torch.from_numpy(x.transpose(0, 3, 1, 2).copy()),
            timestep=torch.from_numpy(t),
            encoder_hidden_states=torch.from_numpy(tokens),
            attention_mask=torch.from_numpy(mask),
            return_dict=False,
        )[0]
        if config.prediction == "latents":  # as PRXPixelPipeline turns it into a velocity
            floor = torch.from_numpy(t).clamp(min=0.05)[:, None, None, None]
            output = (torch.from_numpy(x.transpose(0, 3, 1, 2).copy()) - output) / floor
    return output.numpy().transpose(0, 2, 3, 1)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", CASES)
def test_the_forward_pass_equals_the_torch_class(name):
    config = CASES[name]
    params = random_params(config)
    x, t, tokens, mask = inputs(config)
    theirs = torch_forward(config, to_prx(params, config), x, t, tokens, mask)
    conditioning = Conditioning(tokens=jnp.asarray(tokens), mask=jnp.asarray(mask))
    ours = apply(config, params, jnp.asarray(x), jnp.asarray(t), conditioning)
    assert theirs.std() > 0.1
    # Dividing by t magnifies a pixel model's output twentyfold at most.
    error = np.abs(np.asarray(ours) - theirs) * np.maximum(t, 0.05)[:, None, None, None] ** (
        config.prediction == "latents"
    )
    print(name, "max error", error.max(), "output std", theirs.std())
    assert error.max() <= 1e-5


@pytest.mark.filterwarnings("ignore")
def test_weights_of_the_torch_class_come_back():
    import dataclasses

    torch = pytest.importorskip("torch")
    prx = pytest.importorskip("diffusers.models.transformers.transformer_prx")
    config = dataclasses.replace(LATENT, modulation_rank=LATENT.hidden_size)
    arguments = {k: v for k, v in prx_config(config).items() if not k.startswith("_")}
    torch.manual_seed(0)
    model = prx.PRXTransformer2DModel(**arguments)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.08)
    tensors = {name: tensor.detach().numpy() for name, tensor in model.state_dict().items()}
    x, t, tokens, mask = inputs(config)
    theirs = torch_forward(config, tensors, x, t, tokens, mask)
    conditioning = Conditioning(tokens=jnp.asarray(tokens), mask=jnp.asarray(mask))
    ours = apply(config, from_prx(tensors, config), jnp.asarray(x), jnp.asarray(t), conditioning)
    np.testing.assert_allclose(np.asarray(ours), theirs, atol=1e-5 * max(1.0, theirs.std()))
