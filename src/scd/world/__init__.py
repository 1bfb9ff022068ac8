"""The procedural world: drawn people with exact truth, endless and seeded. NumPy and OpenCV only.

scene = world.Scene.from_seed(7)          # a person, clothes, a place, light and a camera
view = scene.view(0, size=128)            # a posture and a turn
view.image, view.pose, view.labels        # picture and truth
"""

from .flat import flat_garment
from .scene import VERSION, Person, Scene, View
from .tailor import LABELS
from .wardrobe import Garment, Outfit, sample_garment, sample_outfit

__all__ = [
    "LABELS",
    "VERSION",
    "Garment",
    "Outfit",
    "Person",
    "Scene",
    "View",
    "flat_garment",
    "sample_garment",
    "sample_outfit",
]
