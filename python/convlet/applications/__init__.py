"""Ready-made networks, each a short function that can be read and copied.

All take ``input_shape`` (H, W, C) of any size that their layers leave something of, and the number
of ``classes``. What else they have in common:

scale: multiplied onto the input first: 1/255 for pixels 0..255, 1 (no such layer) for data that is
    scaled. Or a name, for pixels 0..255 that become what weights from elsewhere expect: "imagenet"
    subtracts the mean of ImageNet's channels and divides by their standard deviation, "inception"
    gives -1..1.
classifier_activation: of the last layer: "softmax", "sigmoid" for several labels per image, or None
    for logits.

They raise ValueError, with the network's name, for an input that is no image or too small.

Layers bear the names of the same layers in torchvision (or timm, for what only timm has), so
`load_torch_weights` finds the weights of every layer by its name.
"""

from convlet.applications.alexnet import alexnet
from convlet.applications.convnext import convnext_tiny
from convlet.applications.densenet import densenet121
from convlet.applications.googlenet import googlenet
from convlet.applications.heads import multi_task
from convlet.applications.inception import inception_v3
from convlet.applications.lenet import lenet
from convlet.applications.mobilenet import mobilenet_v2
from convlet.applications.nin import nin
from convlet.applications.recurrent import gru_classifier, lstm_classifier
from convlet.applications.resnet import resnet18, resnet18_cifar, resnet34, resnet50
from convlet.applications.senet import se_resnet50
from convlet.applications.sizes import SMALLEST
from convlet.applications.torch_weights import load_torch_weights
from convlet.applications.tutorial import cifar_cnn, cifar_small, img224, mnist_cnn, small_cnn
from convlet.applications.vgg import vgg11, vgg16
from convlet.applications.vit import vit_base, vit_small, vit_tiny

# Every network, by the name that `convlet train --model` takes.
MODELS = {
    network.__name__: network
    for network in (
        small_cnn,
        cifar_cnn,
        mnist_cnn,
        cifar_small,
        img224,
        lenet,
        alexnet,
        vgg11,
        vgg16,
        nin,
        googlenet,
        inception_v3,
        resnet18,
        resnet34,
        resnet50,
        resnet18_cifar,
        densenet121,
        se_resnet50,
        mobilenet_v2,
        convnext_tiny,
        vit_tiny,
        vit_small,
        vit_base,
        lstm_classifier,
        gru_classifier,
    )
}

__all__ = ["MODELS", "SMALLEST", "load_torch_weights", "multi_task", *MODELS]
