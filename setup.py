"""Packaging of cxr_jax: lower bounds here, the tested versions in requirements.lock."""

import setuptools

CORE = [
    "jax>=0.10.0",
    "flax>=0.12.0",
    "optax>=0.2.8",
    "orbax-checkpoint>=0.12.0",
    "tensorflow-datasets>=4.9.9",
    "importlib_resources>=6.0",  # tensorflow-datasets needs it and does not say so
    "grain>=0.2.15",
    "array_record>=0.8.0",
    "numpy>=2.0",
    "scipy>=1.13",
    "scikit-learn>=1.5",
    "iterative-stratification>=0.1.9",
    "ml-collections>=1.1",
    "opencv-python-headless>=4.10",
    "pillow>=11.0",
    "etils[epath]>=1.12",
    "safetensors>=0.5",
    "h5py>=3.12",
    "pooch>=1.8",
    "matplotlib>=3.9",
    "tensorboardX>=2.6",
    "tqdm>=4.66",
]
TEST = [
    "pytest>=8.0",
    "pytest-xdist>=3.6",
    "hypothesis>=6.100",
    "keras>=3.10",  # an independent DenseNet, on the JAX backend
    "ruff>=0.15",
    "ensemble-boxes>=1.0.9",  # the reference of weighted boxes fusion
    "pycocotools>=2.0.8",  # the reference of average precision
]

setuptools.setup(
    name="cxr-jax",
    version="0.1.0",
    description="Reading radiographs with JAX: CheXNet, MURA, attention fusion, ADPD",
    license="Apache-2.0",
    python_requires=">=3.11",
    packages=setuptools.find_packages(include=["cxr_jax*", "data_builders*"]),
    package_data={"data_builders": ["*/*.json", "*/*.csv"]},
    install_requires=CORE,
    extras_require={
        "dicom": [
            "pydicom>=3.0",
            "pylibjpeg>=2.0",
            "pylibjpeg-libjpeg>=2.3",
            "pylibjpeg-openjpeg>=2.4",
        ],
        "beam": ["apache-beam>=2.70"],
        "gpu": ["jax[cuda13]>=0.10.0"],
        "tpu": ["jax[tpu]>=0.10.0"],
        "test": TEST,
        "dev": [*TEST, "pre-commit>=4.0", "torch>=2.9"],
    },
)
