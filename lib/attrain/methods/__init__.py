"""Attribution methods: values that name a table of rules and its settings."""

from attrain.methods.gradient import LRP as LRP
from attrain.methods.gradient import ZB as ZB
from attrain.methods.gradient import BCos as BCos
from attrain.methods.gradient import DeepLift as DeepLift
from attrain.methods.gradient import GradCAM as GradCAM
from attrain.methods.gradient import Gradient as Gradient
from attrain.methods.gradient import GuidedBackprop as GuidedBackprop
from attrain.methods.gradient import InputXGradient as InputXGradient
from attrain.methods.gradient import IntegratedGradients as IntegratedGradients
from attrain.methods.gradient import Method as Method
from attrain.methods.gradient import Zennit as Zennit
from attrain.methods.zplus import Dual as Dual
from attrain.methods.zplus import ZPlus as ZPlus
