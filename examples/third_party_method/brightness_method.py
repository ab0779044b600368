from dataclasses import dataclass

import numpy as np

from medground_bench.attribution.method import method


@dataclass(frozen=True)
class Parameters:
    power: float = 2.0  # how much the brightest pixels stand out


@method("brightness", family="control", parameters=Parameters, cost="0 F", reference="a control: bright is evidence")
def brightness(lvlm, episode, parameters):
    return np.asarray(episode.frame.convert("L"), float) ** parameters.power
