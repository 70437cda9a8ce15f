"""OpenAI's SDK and a studio with a token."""

from __future__ import annotations

import openai
import pytest
from studio import folders_in, running_studio

TOKEN = "a-token-for-tests-that-is-long-enough"


def test_the_token_is_the_sdk_s_api_key(tmp_path):
    with running_studio(**folders_in(tmp_path), token=TOKEN) as studio:
        address = f"{studio.url}/v1"
        with openai.OpenAI(base_url=address, api_key=TOKEN) as owner:
            assert owner.models.list().data
        with openai.OpenAI(base_url=address, api_key="another", max_retries=0) as stranger:
            with pytest.raises(openai.AuthenticationError) as error:
                stranger.models.list()
            assert error.value.status_code == 401 and error.value.type
            with pytest.raises(openai.AuthenticationError):
                stranger.images.generate(prompt="a red house")
