import pytest

from genprior.core.errors import SettingError
from genprior.core.noise_text import level_of, parse_noise


def test_laws_have_their_numbers():
    assert parse_noise("poisson=30") == ("poisson", (30.0,))
    assert parse_noise("signal=0.02,0") == ("signal", (0.02, 0.0))
    assert parse_noise("correlated=0.05,3") == ("correlated", (0.05, 3.0))


def test_the_level_is_that_of_mid_grey():
    assert level_of("poisson=200") == pytest.approx(0.05)
    assert level_of("signal=0.01,0.004") == pytest.approx(0.009**0.5)
    assert level_of("correlated=0.05,3") == level_of(0.05) == 0.05


@pytest.mark.parametrize(("text", "message"), [
    ("gamma=3", "is no law of noise: write poisson=PEAK, signal=GAIN,OFFSET or correlated="),
    ("poisson=many", "is no law of noise"), ("poisson=1,2", "is no law of noise"),
    ("poisson=-3", "peak must be > 0 and finite, got -3"),
    ("poisson=nan", "peak must be > 0"), ("signal=0.1,-1", "offset must be >= 0"),
    ("correlated=0.1,2.5", "width must be a whole number of pixels"),
])
def test_errors(text, message):
    with pytest.raises(SettingError, match=message):
        parse_noise(text)
