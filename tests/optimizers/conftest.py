"""The models that optimizers are tried on."""

import pytest

from tests.helpers.zoo import MODELS


@pytest.fixture(params=MODELS)
def build(request):
    return MODELS[request.param]
