"""Attribution methods, a file a method: the value, its table of rules, its contraction."""

from attrain.methods.attnlrp import AttnLRP as AttnLRP
from attrain.methods.bcos import BCos as BCos
from attrain.methods.deeplift.method import DeepLift as DeepLift
from attrain.methods.gradcam import GradCAM as GradCAM
from attrain.methods.gradcam import from_channels_last as from_channels_last
from attrain.methods.gradcam import from_tokens as from_tokens
from attrain.methods.gradient import Gradient as Gradient
from attrain.methods.gradient import GuidedBackprop as GuidedBackprop
from attrain.methods.gradient import InputXGradient as InputXGradient
from attrain.methods.integrated import IntegratedGradients as IntegratedGradients
from attrain.methods.lrp import LRP as LRP
from attrain.methods.method import Method as Method
from attrain.methods.perturbation import InSilicoMutagenesis as InSilicoMutagenesis
from attrain.methods.perturbation import Occlusion as Occlusion
from attrain.methods.smoothgrad import SmoothGrad as SmoothGrad
from attrain.methods.zb import ZB as ZB
from attrain.methods.zennit import Zennit as Zennit
from attrain.methods.zplus import Dual as Dual
from attrain.methods.zplus import ZPlus as ZPlus
