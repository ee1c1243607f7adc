from mrcnn import overlays as pictures
from mrcnn import visualize
from mrcnn import visualize as displays
from mrcnn import visualize as drawing
from mrcnn.matterport import plots


def test_visualize_hands_on_every_public_name():
    public = {
        name: value
        for module in (displays, drawing, pictures, plots)
        for name, value in vars(module).items()
        if callable(value) and getattr(value, "__module__", "") == module.__name__ and not name.startswith("_")
    }
    # What marks axes is for the displays alone.
    inner = {"frame_axes", "add_rectangle", "add_link", "add_outline"}
    assert public.keys() - inner == set(visualize.__all__) - {"OVERLAY_COLORS"}
    for name in public.keys() - inner:
        assert getattr(visualize, name) is public[name]
