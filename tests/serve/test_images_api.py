"""OpenAI's own SDK, unmodified, draws with the studio."""

from __future__ import annotations

import asyncio
import base64
import io
import time

import httpx
import numpy as np
import openai
import pytest
from openai import AsyncOpenAI, OpenAI
from PIL import Image
from studio import RunningStudio

from pinxit.model_loading import load_checkpoint
from pinxit.picture_files import picture_bytes
from pinxit.picture_texts import picture_texts

PROMPT = "a small red house under a full moon"
SEED = {"seed": 7}


@pytest.fixture(scope="module")
def client(studio: RunningStudio) -> OpenAI:
    """OpenAI's client, which does not repeat what failed."""
    return OpenAI(base_url=f"{studio.url}/v1", api_key="unused", max_retries=0)


@pytest.fixture(scope="module")
def house() -> bytes:
    """The file of the picture that the requests with `SEED` draw."""
    model = load_checkpoint(None)
    image, recipe = next(iter(model.stream(PROMPT, seed=7)))
    return picture_bytes(image, recipe)


def file_of(item: object) -> bytes:
    """Returns the file in an item or an event."""
    return base64.b64decode(item.b64_json)  # type: ignore[attr-defined]


def png(image: Image.Image) -> bytes:
    """Returns an image as a PNG."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def upright(size: tuple[int, int] = (64, 64)) -> Image.Image:
    """Returns a picture with a bright left half."""
    pixels = np.full((size[1], size[0], 3), 30, np.uint8)
    pixels[:, : size[0] // 2] = (200, 120, 60)
    return Image.fromarray(pixels)


# --- pictures ---------------------------------------------------------------------------------


def test_a_picture_has_the_bytes_that_python_draws(client, house):
    answer = client.images.generate(prompt=PROMPT, extra_body=SEED)
    assert file_of(answer.data[0]) == house
    assert (answer.size, answer.output_format, answer.quality) == ("64x64", "png", "medium")
    assert answer.background == "opaque" and abs(answer.created - time.time()) < 60
    item = answer.data[0].to_dict()
    assert item["seed"] == item["recipe"]["seed"] == 7 and item["recipe"]["prompt"] == PROMPT
    usage = answer.usage
    assert (
        usage.output_tokens == 64 and usage.input_tokens == usage.input_tokens_details.text_tokens
    )
    assert usage.total_tokens == usage.input_tokens + usage.output_tokens > 64
    assert answer.to_dict()["warnings"] == []


def test_an_address_leads_to_the_same_file(client, house):
    answer = client.images.generate(prompt=PROMPT, response_format="url", extra_body=SEED)
    assert answer.data[0].b64_json is None
    got = httpx.get(answer.data[0].url)
    assert got.content == house and got.headers["content-type"] == "image/png"
    jpeg = client.images.generate(
        prompt=PROMPT,
        response_format="url",
        output_format="jpeg",
        output_compression=80,
        extra_body=SEED,
    )
    assert httpx.get(jpeg.data[0].url).content[:2] == b"\xff\xd8"


def test_number_size_format_and_seed(client):
    answer = client.images.generate(
        prompt=PROMPT, n=2, size="96x64", output_format="webp", extra_body=SEED
    )
    files = [file_of(item) for item in answer.data]
    assert [Image.open(io.BytesIO(file)).size for file in files] == [(96, 64)] * 2
    assert [Image.open(io.BytesIO(file)).format for file in files] == ["WEBP"] * 2
    assert [item.to_dict()["seed"] for item in answer.data] == [7, 8]
    assert files[0] != files[1] and answer.size == "96x64" and answer.usage.output_tokens == 192
    again = client.images.generate(
        prompt=PROMPT, size="96x64", output_format="webp", extra_body={"seed": 8}
    )
    assert file_of(again.data[0]) == files[1]


def test_without_a_seed_each_picture_is_another_and_its_seed_draws_it_again(client):
    first, second = (client.images.generate(prompt=PROMPT).data[0] for _ in range(2))
    seed = first.to_dict()["seed"]
    assert seed != second.to_dict()["seed"] and file_of(first) != file_of(second)
    again = client.images.generate(prompt=PROMPT, extra_body={"seed": seed})
    assert file_of(again.data[0]) == file_of(first)


def test_quality_is_a_number_of_steps_unless_the_request_has_one(client):
    model = client.models.retrieve(client.models.list().data[0].id).to_dict()
    usual = model["defaults"]["steps"]
    assert model["qualities"] == {
        "low": usual // 2,
        "medium": usual,
        "high": 2 * usual,
        "xhigh": 3 * usual,
        "max": 4 * usual,
    }
    low = client.images.generate(prompt=PROMPT, quality="low")
    assert low.quality == "low" and low.data[0].to_dict()["recipe"]["steps"] == usual // 2
    hd = client.images.generate(prompt=PROMPT, quality="hd")
    assert hd.quality == "high" and hd.data[0].to_dict()["recipe"]["steps"] == 2 * usual
    raw = client.images.with_raw_response.generate(
        prompt=PROMPT, quality="max", extra_body={"num_inference_steps": 3, "guidance_scale": 2}
    )
    recipe = raw.parse().data[0].to_dict()["recipe"]
    assert (recipe["steps"], recipe["guidance_scale"]) == (3, 2.0)
    assert raw.headers["X-Pinxit-Ignored"] == "quality" and raw.parse().quality is None


def test_fields_without_effect_are_named(client, house):
    raw = client.images.with_raw_response.generate(
        prompt=PROMPT,
        user="me",
        moderation="low",
        style="vivid",
        safety_identifier="x",
        extra_body={**SEED, "width": 512, "bad\r\nname: ü": 1},
    )
    names = set(raw.headers["X-Pinxit-Ignored"].split(", "))
    assert names == {*("moderation", "safety_identifier", "style", "user", "width", "bad??name???")}
    assert file_of(raw.parse().data[0]) == house
    assert raw.parse().to_dict()["warnings"] == ["width has no effect; valid: size=(width, height)"]


def test_a_cut_prompt_is_said(client):
    answer = client.images.generate(prompt="a red house " * 200)
    assert len(answer.to_dict()["warnings"]) == 1


# --- streams ----------------------------------------------------------------------------------


def test_a_stream_has_previews_and_then_the_picture(client, house):
    with client.images.generate(
        prompt=PROMPT, stream=True, partial_images=3, extra_body=SEED
    ) as stream:
        events = list(stream)
    kinds = ["image_generation.partial_image"] * 3 + ["image_generation.completed"]
    assert [event.type for event in events] == kinds
    assert [event.partial_image_index for event in events[:3]] == [0, 1, 2]
    assert all(Image.open(io.BytesIO(file_of(event))).size == (64, 64) for event in events)
    assert len({event.b64_json for event in events}) == 4
    steps = [event.to_dict()["step"] for event in events[:3]]
    assert steps == sorted(set(steps)) and steps[-1] < events[0].to_dict()["steps"]
    last = events[-1]
    assert file_of(last) == house and last.usage.total_tokens > 64
    assert last.to_dict()["recipe"]["seed"] == last.to_dict()["seed"] == 7
    for event in events:
        assert (event.size, event.output_format, event.background) == ("64x64", "png", "opaque")


def test_a_stream_of_two_pictures_without_previews(client):
    stream = client.images.generate(prompt=PROMPT, n=2, stream=True, extra_body=SEED)
    events = [event.to_dict() for event in stream]
    assert [event["type"] for event in events] == ["image_generation.completed"] * 2
    # the pictures are drawn side by side, so either may be the first
    assert sorted((event["picture"], event["seed"]) for event in events) == [(0, 7), (1, 8)]


def test_the_asynchronous_client(studio, house):
    async def draw() -> tuple[list[object], bytes]:
        async with AsyncOpenAI(base_url=f"{studio.url}/v1", api_key="unused") as client:
            stream = await client.images.generate(
                prompt=PROMPT, stream=True, partial_images=1, extra_body=SEED
            )
            events = [event async for event in stream]
            answer = await client.images.generate(prompt=PROMPT, extra_body=SEED)
        return events, file_of(answer.data[0])

    events, file = asyncio.run(draw())
    assert [event.type for event in events] == [
        "image_generation.partial_image",
        "image_generation.completed",
    ]
    assert file_of(events[-1]) == file == house


# --- edits ------------------------------------------------------------------------------------


def test_an_edit_begins_with_a_picture(client):
    source = png(upright((128, 96)))
    how = {"prompt": PROMPT, "extra_body": {**SEED, "strength": 0.5}}
    answer = client.images.edit(image=("photo.png", source), **how)
    model = load_checkpoint(None)
    order = model.order(PROMPT, seed=7, image=upright((128, 96)), strength=0.5)
    ((_, image),) = model.pictures(order)
    drawn = Image.open(io.BytesIO(file_of(answer.data[0])))
    assert np.array_equal(np.asarray(drawn), np.asarray(image))
    recipe = answer.data[0].to_dict()["recipe"]["image"]
    assert recipe["name"] == "photo.png" and recipe["sha256"] == order.source.sha256
    assert answer.usage.input_tokens_details.image_tokens == 64
    with client.images.edit(
        image=("photo.png", source), stream=True, partial_images=2, **how
    ) as stream:
        events = list(stream)
    kinds = ["image_edit.partial_image"] * 2 + ["image_edit.completed"]
    assert [event.type for event in events] == kinds
    assert file_of(events[-1]) == file_of(answer.data[0])


def test_the_mask_s_transparent_part_is_repainted(client):
    """A mask of OpenAI's kind and the same mask in black and white give the same picture."""
    source, white = upright(), np.zeros((64, 64), np.uint8)
    white[:, 32:] = 255
    clear = source.convert("RGBA")
    clear.putalpha(Image.fromarray(255 - white))
    masks = {"openai": png(clear), "ours": png(Image.fromarray(white))}
    opaque = Image.fromarray(white).convert("RGBA")
    masks["opaque"] = png(opaque)
    drawn = {}
    for name, mask in masks.items():
        answer = client.images.edit(
            image=png(source), mask=mask, prompt="a blue house", extra_body=SEED
        )
        drawn[name] = np.asarray(Image.open(io.BytesIO(file_of(answer.data[0]))))
    assert np.array_equal(drawn["openai"][:, :32], np.asarray(source)[:, :32])
    assert not np.array_equal(drawn["openai"][:, 32:], np.asarray(source)[:, 32:])
    assert np.array_equal(drawn["openai"], drawn["ours"])
    assert np.array_equal(drawn["opaque"], drawn["ours"])


def test_wrong_pictures_are_refused(client):
    whole = png(upright())
    bad = [
        {"image": b"no picture"},
        {"image": [whole, whole]},
        {"image": whole, "mask": png(upright((32, 32)))},
        {"image": whole, "mask": png(Image.new("L", (64, 64)))},
        {"image": whole, "mask": whole[: len(whole) // 2]},
        {"image": png(Image.new("1", (8192, 8192)))},
        {"image": whole, "extra_body": {"strength": 0}},
        {"image": whole, "extra_body": {"seed": "seven"}},
        {"image": whole, "extra_body": {"image_name": "x", "markup": "y"}},
        {"image": whole, "size": "63x64"},
    ]
    for case in bad:
        with pytest.raises(openai.BadRequestError) as error:
            client.images.edit(prompt=PROMPT, **case)
        assert error.value.param, case


# --- models and errors ------------------------------------------------------------------------


def test_models_are_listed_and_retrieved(client):
    client.images.generate(prompt=PROMPT, extra_body={"num_inference_steps": 1})  # loads it
    models = client.models.list().data
    assert models and models[0].owned_by == "pinxit" and models[0].object == "model"
    one = client.models.retrieve(models[0].id)
    assert one.to_dict()["image_size"] == 64 and one.to_dict()["loaded"] is True
    with pytest.raises(openai.NotFoundError) as error:
        client.models.retrieve("gpt-image-2")
    assert error.value.code == "model_not_found" and models[0].id in str(error.value)


@pytest.mark.parametrize(
    ("how", "param"),
    [
        ({"prompt": ""} | {"n": 0}, "n"),
        ({"n": 65}, "n"),
        ({"size": "9999x9999"}, "size"),
        ({"size": "0x64"}, "size"),
        ({"size": "big"}, "size"),
        ({"size": "60x60"}, "size"),
        ({"output_format": "gif"}, "output_format"),
        ({"output_format": "png", "output_compression": 50}, "output_compression"),
        ({"background": "transparent"}, "background"),
        ({"svg": {"model": "x"}}, "svg"),
        ({"extra_body": {"frame_count": 3}}, "frame_count"),
        ({"extra_body": {"seed": -1}}, "seed"),
        ({"extra_body": {"seed": 2**32}}, "seed"),
        ({"n": 2, "extra_body": {"seed": 2**32 - 1}}, "seed"),
        ({"extra_body": {"num_inference_steps": 10**6}}, "num_inference_steps"),
        ({"extra_body": {"num_inference_steps": 0}}, "num_inference_steps"),
        ({"extra_body": {"solver": "magic"}}, "solver"),
        ({"extra_body": {"shift": 1e-198}}, "shift"),
        ({"extra_body": {"guidance_scale": 1e300}}, "guidance_scale"),
        ({"extra_body": {"cfg_scale": 2, "guidance_scale": 3}}, "cfg_scale"),
        ({"extra_body": {"guidance_interval": [0.9, 0.1]}}, "guidance_interval"),
        ({"extra_body": {"guidance_interval": [0.9]}}, "guidance_interval"),
        ({"prompt": "é" * 9000, "output_format": "jpeg"}, "output_format"),
        ({"prompt": "a" * 32001}, "prompt"),
    ],
)
def test_wrong_fields_are_bad_requests_that_name_them(client, how, param):
    with pytest.raises(openai.BadRequestError) as error:
        client.images.generate(**{"prompt": PROMPT, **how})
    assert error.value.param == param and param in str(error.value)
    assert error.value.type == "invalid_request_error"


def test_an_unknown_model_and_an_unknown_job_are_not_found(client, studio):
    with pytest.raises(openai.NotFoundError) as error:
        client.images.generate(prompt=PROMPT, model="dall-e-3")
    assert error.value.code == "model_not_found" and error.value.param == "model"
    for method, path in (("GET", ""), ("DELETE", ""), ("GET", "/events"), ("GET", "/pictures/0")):
        answer = httpx.request(method, f"{studio.url}/v1/jobs/none{path}")
        assert answer.status_code == 404 and answer.json()["error"]["message"]


def test_a_bug_shows_nothing_of_itself(client, studio, monkeypatch):
    def broken(request: object) -> None:
        raise RuntimeError("the secret of the server")

    monkeypatch.setattr(studio.engine, "submit", broken)
    with pytest.raises(openai.InternalServerError) as error:
        client.images.generate(prompt=PROMPT)
    assert "secret" not in str(error.value) and error.value.code == "internal_error"


def test_a_full_queue_and_an_ending_server(studio, client, monkeypatch):
    """An empty queue takes a large request; then there is no room until it has been drawn."""
    slow = {"prompt": PROMPT, "n": 64, "steps": 200}
    job = httpx.post(f"{studio.url}/v1/jobs", json=slow).json()
    with pytest.raises(openai.RateLimitError) as error:
        client.images.generate(prompt=PROMPT, n=40)
    assert int(error.value.response.headers["retry-after"]) >= 1
    assert error.value.code == "queue_full"
    assert httpx.delete(f"{studio.url}/v1/jobs/{job['id']}").status_code == 200
    with monkeypatch.context() as patch:
        patch.setattr(studio.engine, "_draining", True)
        with pytest.raises(openai.InternalServerError) as ending:
            client.images.generate(prompt=PROMPT)
    assert ending.value.status_code == 503


def test_other_methods_and_addresses(studio):
    for path, methods in {"/v1/jobs": "GET, POST", "/v1/jobs/x": "DELETE, GET"}.items():
        answer = httpx.patch(studio.url + path)
        assert answer.status_code == 405 and answer.headers["allow"] == methods
        assert answer.json()["error"]["code"] == "method_not_allowed"
    assert httpx.get(f"{studio.url}/v2").json()["error"]["code"] == "not_found"


def test_a_picture_s_file_has_its_texts(client):
    """Prompts with markup, right-to-left letters and control characters come back unchanged."""
    prompt = "<img src=x onerror=alert(1)> בית 🏠 \x07\u202e\n\ttail"
    answer = client.images.generate(prompt=prompt, extra_body=SEED)
    texts, _ = picture_texts(file_of(answer.data[0]), where="answer")
    assert answer.data[0].to_dict()["recipe"]["prompt"] == prompt
    assert texts["parameters"].startswith("<img src=x")
