"""CAREamics on a folder of TIFFs, in the environment of `pip install careamics`.

    python careamics_side.py NOISY RESULTS MINUTES WORK

It trains Noise2Void on the images of the folder NOISY for so many minutes, as its documentation does: patches
of 64 x 64, batches of 16, its own optimizer and schedule. Each result has the name of its image, in RESULTS.
"""

import importlib
import sys
from pathlib import Path

import tifffile

_MOST_EPOCHS = 100_000  # the time ends the training


def main() -> None:
    noisy, results, minutes, work = sys.argv[1:]
    seconds = round(60 * float(minutes))
    package = importlib.import_module("careamics")  # this environment has it
    config = importlib.import_module("careamics.config").create_advanced_n2v_config(
        experiment_name="noise2void",
        data_type="tiff",
        axes="YX",
        patch_size=[64, 64],
        batch_size=16,
        num_epochs=_MOST_EPOCHS,
        trainer_params={"max_time": {"seconds": seconds}, "accelerator": "cpu"},
    )
    careamist = package.CAREamist(config, work_dir=work, enable_progress_bar=False)
    careamist.train(train_data=noisy)
    files = sorted(Path(noisy).glob("*.tif"))
    predictions, _ = careamist.predict([str(file) for file in files], tile_size=(256, 256))
    Path(results).mkdir()
    for file, prediction in zip(files, predictions, strict=True):
        tifffile.imwrite(Path(results) / file.name, prediction.squeeze())


if __name__ == "__main__":
    main()
