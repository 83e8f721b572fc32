"""How hot the board is and what it draws, where the kernel says so; elsewhere nothing.

Temperatures: Linux' thermal zones. Power: the INA3221 of Jetson boards, by its hwmon driver
(JetPack 5 and later: volts and amperes) or the older one (JetPack 4: watts).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

SYSFS: Final = Path("/sys")
_ZONES: Final = "class/thermal/thermal_zone*"
_HWMON: Final = "bus/i2c/drivers/ina3221/*/hwmon/hwmon*"
_IIO: Final = "bus/i2c/drivers/ina3221x/*/iio:device*"


def temperatures_c(root: Path = SYSFS) -> dict[str, float]:
    """Return degrees Celsius by thermal zone, such as ``cpu-thermal``."""
    found: dict[str, float] = {}
    for zone in sorted(root.glob(_ZONES)):
        name, value = _text(zone / "type"), _number(zone / "temp")
        if name and value is not None:
            found[_free(name, found)] = value / 1000
    return found


def power_w(root: Path = SYSFS) -> dict[str, float]:
    """Return watts by rail, such as ``VDD_IN``."""
    found: dict[str, float] = {}
    for name, watts in (*_hwmon_rails(root), *_iio_rails(root)):
        found[_free(name, found)] = watts
    return found


def _hwmon_rails(root: Path) -> Iterator[tuple[str, float]]:
    for device in sorted(root.glob(_HWMON)):
        for label in sorted(device.glob("in*_label")):
            number = label.name.removeprefix("in").removesuffix("_label")
            volts = _number(device / f"in{number}_input")
            amperes = _number(device / f"curr{number}_input")
            name = _text(label)
            if name and volts is not None and amperes is not None:
                yield name, volts * amperes / 1e6


def _iio_rails(root: Path) -> Iterator[tuple[str, float]]:
    for device in sorted(root.glob(_IIO)):
        for power in sorted(device.glob("in_power*_input")):
            number = power.name.removeprefix("in_power").removesuffix("_input")
            name, watts = _text(device / f"rail_name_{number}"), _number(power)
            if name and watts is not None:
                yield name, watts / 1000


def _free(name: str, taken: dict[str, float]) -> str:
    """Return ``name``, with a number when two are called that."""
    number = sum(other == name or other.startswith(f"{name}#") for other in taken)
    return f"{name}#{number + 1}" if number else name


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:  # a zone that is switched off answers so
        return ""


def _number(path: Path) -> float | None:
    try:
        return float(_text(path))
    except ValueError:
        return None
