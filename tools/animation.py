"""The animation of tools/report.py: one swing-up, the model next to an expert."""
# First, because it sets MPLBACKEND before matplotlib is imported.
from plots import COLOR, FAINT, INK, POLICY_NAME

import numpy as np
from matplotlib.font_manager import findfont
from PIL import Image, ImageDraw, ImageFont


def write_animation(run, path):
    """Draws eight seconds around the last switch to balancing, model next to run.rival."""
    track_limit, force_limit = run.world["track_limit"], run.world["force_limit"]
    period = run.world["control_period"]
    rollouts = {policy: run.rollout(policy, run.example) for policy in ("model", run.rival)}
    last_switch = max(
        run.outcomes("test", policy)["first_switch"][run.example] for policy in rollouts)
    begin = max(0, last_switch - round(4.5 / period))
    end = min(begin + round(8 / period), run.evaluation["steps"])
    stride = max(1, round(0.04 / period))  # near 25 fps

    fine = 3  # drawn this much larger, then shrunk, which smooths the edges
    unit, width, header = 72 * fine, 400 * fine, 54 * fine  # unit: of the cart and the arrows
    pole_meters = 2 * run.outcomes("test", "model")["half_length"][run.example]
    meter = min(2.4 * unit / track_limit, 2.8 * unit / pole_meters)
    pole = pole_meters * meter
    height = int(header + 2 * max(pole, 0.5 * unit) + 40 * fine)
    pivot = (header + height) / 2 - 5 * fine
    rail = pivot + 0.16 * unit
    plain, bold = (
        ImageFont.truetype(findfont("DejaVu Sans" + kind), 14 * fine) for kind in ("", ":bold"))

    def draw_panel(draw, left, policy, step):
        center = left + width / 2
        left_end, right_end = center - track_limit * meter, center + track_limit * meter
        draw.line([left_end, rail, right_end, rail], FAINT, 2 * fine)
        for stop in (left_end, right_end):
            draw.line([stop, rail - 8 * fine, stop, rail + 8 * fine], FAINT, 2 * fine)
        cart = center + step["x"] * meter
        draw.rounded_rectangle(
            [cart - 0.3 * unit, pivot - 0.12 * unit, cart + 0.3 * unit, pivot + 0.14 * unit],
            4 * fine, COLOR[policy])
        tip = cart + pole * np.sin(step["theta"]), pivot - pole * np.cos(step["theta"])
        draw.line([cart, pivot, *tip], INK, 6 * fine)
        draw.circle((cart, pivot), 5 * fine, INK)
        draw.circle(tip, 3 * fine, INK)
        if abs(step["force"]) > 0.03 * force_limit:
            sign = np.sign(step["force"])
            tail = cart + sign * 0.34 * unit
            neck = tail + step["force"] / force_limit * 1.2 * unit
            draw.line([tail, pivot, neck, pivot], INK, 3 * fine)
            draw.polygon(
                [neck, pivot - 6 * fine, neck, pivot + 6 * fine, neck + sign * 9 * fine, pivot],
                INK)
        draw.text((left + 20 * fine, 27 * fine), POLICY_NAME[policy], INK, bold, "lm")
        after = left + 40 * fine + draw.textlength(POLICY_NAME[policy], bold)
        label = [after, 13 * fine, after + 110 * fine, 41 * fine]
        draw.rounded_rectangle(label, 14 * fine, COLOR[policy] if step["mode"] else "white",
                               COLOR[policy], 2 * fine)
        draw.text((after + 55 * fine, 27 * fine), "stabilize" if step["mode"] else "swing up",
                  "white" if step["mode"] and policy == "model" else INK, plain, "mm")

    frames = []
    for t in range(begin, end, stride):
        canvas = Image.new("RGB", (2 * width, height), "white")
        draw = ImageDraw.Draw(canvas)
        for i, (policy, steps) in enumerate(rollouts.items()):
            draw_panel(draw, i * width, policy, steps[min(t, len(steps) - 1)])
        draw.text((width, height - 8 * fine), f"{period * t:.1f} s", INK, plain, "ms")
        frames.append(canvas.reduce(fine))
    # One palette for all frames, else the background flickers.
    palette = frames[-1].quantize(128, Image.Quantize.MAXCOVERAGE)
    frames = [frame.quantize(palette=palette, dither=Image.Dither.NONE) for frame in frames]
    frames[0].save(path, save_all=True, append_images=frames[1:],
                   duration=[round(1000 * period * stride)] * (len(frames) - 1) + [1500], loop=0)
