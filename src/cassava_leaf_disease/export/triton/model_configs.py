"""The `config.pbtxt` of every model of the repository."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Final

from pydantic import BaseModel

from cassava_leaf_disease.config.schema import TritonConfig
from cassava_leaf_disease.domain import NUM_CLASSES
from cassava_leaf_disease.export.triton.pbtxt import Message, Word
from cassava_leaf_disease.imaging.preprocess import Preprocessing
from cassava_leaf_disease.imaging.quality import PhotoQuality
from cassava_leaf_disease.inference import served
from cassava_leaf_disease.inference.served import PreprocessSettings, ServedMember, ServedModel, Voter, VoteSettings
from cassava_leaf_disease.modeling.metadata import ModelMetadata

WARM_UP_FILE: Final = "leaf"  # in a model's folder `warmup`
_GPU_QUEUE_DELAY_US: Final = 2_000
_SHOW_NEWEST: Final[Message] = {"latest": {"num_versions": 1}}


@dataclass(frozen=True)
class Plan:
    """What the configurations are made from.

    `pixels` names the tensor in which each preprocessing arrives; `features` how many a member gives, by its model,
    where its gate wants them.
    """

    settings: TritonConfig
    backend: str
    cpus: int
    description: ServedModel
    pixels: Mapping[Preprocessing, str]
    features: Mapping[str, int]

    @property
    def on_gpu(self) -> bool:
        """Whether the networks run on GPUs."""
        return self.settings.target != "cpu"

    @property
    def views(self) -> int:
        """How many views of a photo the networks see."""
        return len(self.description.views)

    @property
    def gated(self) -> bool:
        """Whether any member has a gate, so that the photo's quality and its distance from leaves are looked at."""
        return self.description.quality_limits is not None

    def photo_dims(self, spec: Preprocessing) -> list[int]:
        """The shape of a photo as a network takes it, without the batch."""
        square = [spec.image_size_px, spec.image_size_px, 3]
        return square if self.views == 1 else [self.views, *square]

    def answer_dims(self, width: int) -> list[int]:
        """The shape of what a network gives for a photo, logits or features, without the batch."""
        return [width] if self.views == 1 else [self.views, width]

    def vote_settings(self) -> VoteSettings:
        """What `vote` is told; the tensors of members end in their number."""
        voters = [
            Voter(
                logits=f"logits_{index}",
                features=f"features_{index}" if member.model in self.features else None,
                weight=member.weight,
                metadata=member.metadata,
                gate_file=f"gate_{index}.json" if _has_gate(member.metadata) else None,
            )
            for index, member in enumerate(self.description.members)
        ]
        return VoteSettings(
            voters=tuple(voters),
            combine=self.description.combine,
            temperature=self.description.temperature,
            views=self.views,
            digest=self.description.digest,
        )


def _has_gate(metadata: ModelMetadata) -> bool:
    return any(each.gate is not None for each in metadata.members or (metadata,))


def preprocess_config(plan: Plan) -> Message:
    """Photos one by one on as many processes as asked for; its queue is what bounds the work that waits."""
    told = PreprocessSettings(
        pixels={name: spec for spec, name in plan.pixels.items()},
        tta=plan.description.tta,
        quality=plan.gated,
        max_bytes=plan.description.max_image_bytes,
        max_pixels=plan.description.max_image_pixels,
    )
    return {
        **_python(served.PREPROCESS, plan, told),
        "input": [_tensor(served.IMAGE, "STRING", [1])],
        "output": [
            *(_tensor(name, "UINT8", plan.photo_dims(spec)) for spec, name in plan.pixels.items()),
            *_quality(plan),
        ],
        **_at_the_door(plan),
    }


def check_config(plan: Plan) -> Message:
    """Before DALI: what it could not decode is refused here."""
    told = PreprocessSettings(
        pixels={},
        tta=plan.description.tta,
        quality=plan.gated,
        max_bytes=plan.description.max_image_bytes,
        max_pixels=plan.description.max_image_pixels,
    )
    return {
        **_python(served.CHECK, plan, told),
        "max_batch_size": 1,
        "input": [_tensor(served.IMAGE, "STRING", [1])],
        "output": [_tensor(served.ENCODED, "UINT8", [-1]), *_quality(plan)],
        **_at_the_door(plan),
    }


def dali_config(plan: Plan) -> Message:
    """Decoding and resizing on the GPU; files of any length share a batch."""
    return {
        "name": served.PREPROCESS,
        "backend": "dali",
        "max_batch_size": plan.settings.max_batch_size,
        "input": [{**_tensor(served.ENCODED, "UINT8", [-1]), "allow_ragged_batch": True}],
        "output": [_tensor(name, "UINT8", plan.photo_dims(spec)) for spec, name in plan.pixels.items()],
        "dynamic_batching": {"max_queue_delay_microseconds": _GPU_QUEUE_DELAY_US},
        "instance_group": [_gpu_group(plan)],
        "version_policy": _SHOW_NEWEST,
    }


def member_config(plan: Plan, member: ServedMember, told: BaseModel) -> Message:
    """A network by the plan's backend; `told` are its settings where that is Python."""
    spec = member.metadata.preprocessing
    features = plan.features.get(member.model)
    more = [] if features is None else [_tensor(served.FEATURES, "FP32", plan.answer_dims(features))]
    tensors: Message = {
        "input": [_tensor(served.PIXELS, "UINT8", plan.photo_dims(spec))],
        "output": [_tensor(served.LOGITS, "FP32", plan.answer_dims(NUM_CLASSES)), *more],
        "dynamic_batching": {"max_queue_delay_microseconds": _GPU_QUEUE_DELAY_US if plan.on_gpu else 0},
        "model_warmup": [_warm_up(size, plan.photo_dims(spec)) for size in sorted({1, _largest_batch(plan)})],
    }
    if plan.backend == "python":
        return {**_python(member.model, plan, told), **tensors, "instance_group": [_cpu_group(1)]}
    common: Message = {
        "name": member.model,
        "backend": plan.backend,
        "max_batch_size": plan.settings.max_batch_size,
        **tensors,
        "instance_group": [_gpu_group(plan) if plan.on_gpu else _cpu_group(1)],
        "version_policy": _SHOW_NEWEST,
    }
    if plan.backend == "onnxruntime" and not plan.on_gpu:
        return {**common, "parameters": [_parameter("intra_op_thread_count", str(plan.cpus))]}
    return common


def vote_config(plan: Plan) -> Message:
    """The members' answers to one."""
    told = plan.vote_settings()
    widths = [plan.features.get(member.model, 0) for member in plan.description.members]
    return {
        **_python(served.VOTE, plan, told),
        "input": [
            *(_tensor(voter.logits, "FP32", plan.answer_dims(NUM_CLASSES)) for voter in told.voters),
            *(
                _tensor(voter.features, "FP32", plan.answer_dims(width))
                for voter, width in zip(told.voters, widths, strict=True)
                if voter.features
            ),
        ],
        "output": _answer(plan),
        "dynamic_batching": {"max_queue_delay_microseconds": 0},
        "instance_group": [_cpu_group(1)],
    }


def ensemble_config(plan: Plan) -> Message:
    """Files in, answers out; its parameter says what answers, for clients to read."""
    dali = plan.settings.preprocess == "dali"
    quality = _same([served.QUALITY] if plan.gated else [])
    pixels = _same(plan.pixels.values())
    if dali:
        first = [
            _step(served.CHECK, _same([served.IMAGE]), _same([served.ENCODED]) | quality),
            _step(served.PREPROCESS, _same([served.ENCODED]), pixels),
        ]
    else:
        first = [_step(served.PREPROCESS, _same([served.IMAGE]), pixels | quality)]
    voters = plan.vote_settings().voters
    members = [
        _step(
            member.model,
            {served.PIXELS: plan.pixels[member.metadata.preprocessing]},
            {served.LOGITS: voter.logits, **({served.FEATURES: voter.features} if voter.features else {})},
        )
        for member, voter in zip(plan.description.members, voters, strict=True)
    ]
    arriving = [name for voter in voters for name in (voter.logits, voter.features) if name]
    answer = [str(tensor["name"]) for tensor in _answer(plan)]
    return {
        "name": served.ENSEMBLE,
        "platform": "ensemble",
        # Files of other lengths share no request where DALI decodes them.
        "max_batch_size": 1 if dali else plan.settings.max_batch_size,
        "input": [_tensor(served.IMAGE, "STRING", [1])],
        "output": [*_answer(plan), *_quality(plan)],
        "parameters": [_parameter(served.DESCRIPTION_KEY, plan.description.model_dump_json())],
        "ensemble_scheduling": {"step": [*first, *members, _step(served.VOTE, _same(arriving), _same(answer))]},
        "version_policy": _SHOW_NEWEST,
    }


def _answer(plan: Plan) -> list[Message]:
    """What `vote` gives."""
    foreign = [_tensor(served.FOREIGN, "FP64", [1])] if plan.gated else []
    return [_tensor(served.PROBABILITIES, "FP64", [NUM_CLASSES]), _tensor(served.MODEL, "STRING", [1]), *foreign]


def _quality(plan: Plan) -> list[Message]:
    return [_tensor(served.QUALITY, "FP64", [len(fields(PhotoQuality))])] if plan.gated else []


def _same(names: Iterable[str]) -> dict[str, str]:
    """Tensors that a model and the ensemble call alike."""
    return {name: name for name in names}


def _python(name: str, plan: Plan, told: BaseModel) -> Message:
    return {
        "name": name,
        "backend": "python",
        "max_batch_size": plan.settings.max_batch_size,
        "parameters": [_parameter(served.SETTINGS_KEY, told.model_dump_json())],
        "version_policy": _SHOW_NEWEST,
    }


def _at_the_door(plan: Plan) -> Message:
    """Instances, warm-up and a bounded queue. No batches are formed: a photo waits for no other's decoding."""
    instances = plan.settings.preprocess_instances
    return {
        "dynamic_batching": {
            "preferred_batch_size": [1],
            "max_queue_delay_microseconds": 0,
            "default_queue_policy": {"max_queue_size": plan.settings.max_queue},
        },
        "instance_group": [_cpu_group(plan.cpus if instances == "auto" else instances)],
        "model_warmup": [
            {
                "name": "leaf",
                "batch_size": 1,
                "inputs": [
                    {
                        "key": served.IMAGE,
                        "value": {
                            "data_type": Word("TYPE_STRING"),
                            "dims": [1],
                            "input_data_file": WARM_UP_FILE,
                        },
                    }
                ],
            }
        ],
    }


def _warm_up(batch_size: int, dims: Sequence[int]) -> Message:
    zeros: Message = {"data_type": Word("TYPE_UINT8"), "dims": list(dims), "zero_data": True}
    return {
        "name": f"batch of {batch_size}",
        "batch_size": batch_size,
        "inputs": [{"key": served.PIXELS, "value": zeros}],
    }


def _largest_batch(plan: Plan) -> int:
    return plan.settings.max_batch_size if plan.on_gpu else 1


def _cpu_group(count: int) -> Message:
    return {"count": count, "kind": Word("KIND_CPU")}


def _gpu_group(plan: Plan) -> Message:
    """One instance on the first GPU; of several GPUs one on each that the server has."""
    first = {"gpus": [0]} if plan.settings.target == "gpu" else {}
    return {"count": 1, "kind": Word("KIND_GPU"), **first}


def _tensor(name: str, kind: str, dims: Sequence[int]) -> Message:
    return {"name": name, "data_type": Word(f"TYPE_{kind}"), "dims": list(dims)}


def _parameter(key: str, value: str) -> Message:
    return {"key": key, "value": {"string_value": value}}


def _step(model: str, inputs: Mapping[str, str], outputs: Mapping[str, str]) -> Message:
    """Inputs: the model's tensor to the ensemble's; outputs likewise."""
    return {
        "model_name": model,
        "model_version": -1,
        "input_map": [{"key": key, "value": value} for key, value in inputs.items()],
        "output_map": [{"key": key, "value": value} for key, value in outputs.items()],
    }
