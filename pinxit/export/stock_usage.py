"""How to call the stock pipeline with a model, for its card: code and advice.

The advice covers the faults of the pipelines in diffusers 0.42.1, which the parity tests pin.
"""

from __future__ import annotations

from pinxit.export.stock_pipeline import DIFFUSERS, StockPipeline

PROMPT = "a small red house on the left under a full moon"
OF_HIGHER_ORDER = 2
"""Factor on the number of steps for Euler's method, where we draw with a method of higher order."""


def usage(pipeline: StockPipeline, *, dtype: str, repository: str | None) -> str:
    """Returns the section about the stock pipeline: installation, code, advice."""
    return "\n\n".join(
        [
            "```sh\npip install torch diffusers transformers ftfy\n```",
            f"```python\n{code(pipeline, dtype=dtype, repository=repository)}\n```",
            "\n".join(f"- {line}" for line in _advice(pipeline, dtype)),
            _with_pinxit(pipeline, repository),
        ]
    )


def stock_steps(pipeline: StockPipeline) -> int:
    """Returns the number of steps for the stock pipeline, whose last step is almost empty."""
    sampling = pipeline.sampling
    factor = 1 if sampling.solver == "euler" else OF_HIGHER_ORDER
    if sampling.spacing == "diffusers":
        return factor * sampling.steps
    return factor * sampling.steps + 1


def code(pipeline: StockPipeline, *, dtype: str, repository: str | None) -> str:
    """Returns Python code that draws one picture."""
    place = f'"{repository}"' if repository else '"."'
    comment = "" if repository else "  # this folder"
    arguments = [
        f'"{PROMPT}"',
        f"num_inference_steps={stock_steps(pipeline)}",
        f"guidance_scale={max(1.0, float(pipeline.sampling.guidance_scale))}",
    ]
    if not pipeline.binning:
        arguments.append("use_resolution_binning=False")
    if not pipeline.pixels and pipeline.stored.caption_cleaning != "stock":
        arguments.append("skip_text_cleaning=True")
    loading = place if dtype == "float32" else f"{place}, torch_dtype=torch.{dtype}"
    imports = ["from diffusers import DiffusionPipeline"]
    imports = imports if dtype == "float32" else ["import torch", *imports]
    lines = [
        *imports,
        "",
        f"pipe = DiffusionPipeline.from_pretrained({loading}){comment}",
        "image = pipe(",
        *(f"    {argument}," for argument in arguments),
        ").images[0]",
        'image.save("picture.png")',
    ]
    return "\n".join(lines)


def _advice(pipeline: StockPipeline, dtype: str) -> list[str]:
    sampling, side = pipeline.sampling, pipeline.stored.image_size
    lines = [
        f"Tested with diffusers {DIFFUSERS}. The pipeline needs `ftfy`, and fails with a NameError "
        "without it.",
        "With guidance (a scale above 1), give one prompt at a time: a list of prompts, or "
        "`num_images_per_prompt` above 1, fails.",
        "The last step of the scheduler is almost empty, so n steps have the effect of n - 1.",
    ]
    if sampling.solver != "euler":
        lines.append(
            f"Pinxit draws with {sampling.solver} and {sampling.steps} steps. The pipeline uses "
            "Euler's method, which needs more steps."
        )
    if sampling.guidance_interval != (0.0, 1.0) or sampling.cfg_zero_star or sampling.zero_init:
        lines.append(
            "Pinxit limits or changes guidance for this model (guidance_interval, cfg_zero_star, "
            "zero_init). The pipeline cannot, so its pictures differ."
        )
    if not pipeline.binning:
        lines.append(f"At {side} pixels the pipeline fails without `use_resolution_binning=False`.")
    lines += _cleaning(pipeline)
    lines.append(
        f"A prompt has at most {pipeline.text_encoder.max_tokens} tokens; the rest is ignored."
    )
    if dtype == "float16" and not pipeline.text_encoder.half:
        lines.append("The text encoder does not work in float16: use torch.bfloat16 or float32.")
    return lines


def _cleaning(pipeline: StockPipeline) -> list[str]:
    """Returns what differs between the captions in training and the pipeline's prompts."""
    cleaning = pipeline.stored.caption_cleaning
    if pipeline.pixels and cleaning == "stock":
        return [
            "Captions were cleaned as `PRXPipeline` cleans prompts (lower case, no links or "
            "codes). `PRXPixelPipeline` does not clean them, so write prompts in lower case."
        ]
    if cleaning == "none":
        return [
            "Captions were not cleaned in training. The pipeline still repairs broken characters "
            "and decodes HTML entities, which changes few prompts."
        ]
    return []


def _with_pinxit(pipeline: StockPipeline, repository: str | None) -> str:
    place = repository or "."
    return (
        "Pinxit reads this folder too, and draws with its own solvers and in batches:\n\n"
        f'```sh\npinxit generate "{PROMPT}" --checkpoint {place}\n```'
    )
