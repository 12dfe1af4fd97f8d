"""The scripts that people learn Keras from, with their import changed and synthetic data."""

import numpy as np

import convlet as keras


def pictures(n, size, channels, classes, seed):
    """uint8 images (n, size, size, channels) of a bright blob, whose place tells the class."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, n)
    images = rng.integers(0, 120, (n, size, size, channels), dtype=np.uint8)
    angle = 2 * np.pi * labels / classes
    rows = (size / 2 + size / 3 * np.sin(angle)).astype(int)
    columns = (size / 2 + size / 3 * np.cos(angle)).astype(int)
    half = max(1, size // 9)
    for image, row, column in zip(images, rows, columns, strict=True):
        image[row - half : row + half + 1, column - half : column + half + 1] += 100
    return images, labels


def test_cifar_tutorial():
    # tensorflow.org/tutorials/images/cnn
    from convlet import datasets, layers, models

    assert datasets is not None
    train_images, train_labels = pictures(600, 32, 3, 10, seed=0)
    test_images, test_labels = pictures(200, 32, 3, 10, seed=1)
    train_labels, test_labels = train_labels[:, None], test_labels[:, None]  # as cifar10 has them
    train_images, test_images = train_images / 255.0, test_images / 255.0

    model = models.Sequential()
    model.add(layers.Conv2D(32, (3, 3), activation="relu", input_shape=(32, 32, 3)))
    model.add(layers.MaxPooling2D((2, 2)))
    model.add(layers.Conv2D(64, (3, 3), activation="relu"))
    model.add(layers.MaxPooling2D((2, 2)))
    model.add(layers.Conv2D(64, (3, 3), activation="relu"))
    model.add(layers.Flatten())
    model.add(layers.Dense(64, activation="relu"))
    model.add(layers.Dense(10))
    model.summary()
    assert model.count_params() == 122_570

    model.compile(
        optimizer="adam",
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    history = model.fit(
        train_images, train_labels, epochs=6, validation_data=(test_images, test_labels)
    )
    assert len(history.history["accuracy"]) == len(history.history["val_accuracy"]) == 6
    test_loss, test_acc = model.evaluate(test_images, test_labels, verbose=2)
    assert test_acc == history.history["val_accuracy"][-1]
    assert test_loss == history.history["val_loss"][-1]
    assert test_acc > 0.95


def test_mnist_convnet_example():
    # keras.io/examples/vision/mnist_convnet
    keras.utils.set_random_seed(812)
    num_classes = 10
    input_shape = (28, 28, 1)
    (x_train, y_train), (x_test, y_test) = (
        pictures(700, 28, 1, num_classes, seed=0),
        pictures(200, 28, 1, num_classes, seed=1),
    )
    x_train, x_test = x_train[..., 0], x_test[..., 0]
    x_train = x_train.astype("float32") / 255
    x_test = x_test.astype("float32") / 255
    x_train = np.expand_dims(x_train, -1)
    x_test = np.expand_dims(x_test, -1)
    y_train = keras.utils.to_categorical(y_train, num_classes)
    y_test = keras.utils.to_categorical(y_test, num_classes)

    model = keras.Sequential(
        [
            keras.Input(shape=input_shape),
            keras.layers.Conv2D(32, kernel_size=(3, 3), activation="relu"),
            keras.layers.MaxPooling2D(pool_size=(2, 2)),
            keras.layers.Conv2D(64, kernel_size=(3, 3), activation="relu"),
            keras.layers.MaxPooling2D(pool_size=(2, 2)),
            keras.layers.Flatten(),
            keras.layers.Dropout(0.5),
            keras.layers.Dense(num_classes, activation="softmax"),
        ]
    )
    assert model.count_params() == 34_826
    model.compile(loss="categorical_crossentropy", optimizer="adam", metrics=["accuracy"])
    model.fit(x_train, y_train, batch_size=32, epochs=6, validation_split=0.1)
    score = model.evaluate(x_test, y_test, verbose=0)
    assert score[1] > 0.95


def test_images_of_224_pixels():
    x, y = pictures(40, 224, 3, 2, seed=0)
    model = keras.models.Sequential(
        [
            keras.layers.Rescaling(1.0 / 255, input_shape=(224, 224, 3)),
            keras.layers.Conv2D(8, (3, 3), activation="relu"),
            keras.layers.MaxPooling2D(2, 2),
            keras.layers.Conv2D(16, (3, 3), activation="relu"),
            keras.layers.MaxPooling2D(2, 2),
            keras.layers.Flatten(),
            keras.layers.Dense(16, activation="relu"),
            keras.layers.Dense(1, activation="sigmoid"),
        ]
    )
    model.compile(
        loss="binary_crossentropy",
        optimizer=keras.optimizers.RMSprop(learning_rate=0.001),
        metrics=["accuracy"],
    )
    history = model.fit(x, y[:, None], batch_size=8, epochs=6, verbose=0)
    assert history.history["accuracy"][-1] > 0.95
    assert model.predict(x[:3]).shape == (3, 1)


def test_functional_residual_network(tmp_path):
    # keras.io/guides/functional_api: the toy residual network, with callbacks.
    layers = keras.layers
    inputs = keras.Input(shape=(32, 32, 3), name="img")
    x = layers.Conv2D(16, 3, activation="relu")(inputs)
    x = layers.Conv2D(16, 3, activation="relu")(x)
    block_1_output = layers.MaxPooling2D(3)(x)
    x = layers.Conv2D(16, 3, activation="relu", padding="same")(block_1_output)
    x = layers.Conv2D(16, 3, activation="relu", padding="same")(x)
    block_2_output = layers.add([x, block_1_output])
    x = layers.Conv2D(16, 3, activation="relu")(block_2_output)
    x = layers.GlobalAveragePooling2D()(x)
    x = layers.Concatenate()([x, layers.Flatten()(layers.MaxPooling2D(3)(block_2_output))])
    x = layers.Dense(32, activation="relu")(x)
    x = layers.Dropout(0.2)(x)
    outputs = layers.Dense(10, activation="softmax")(x)
    model = keras.Model(inputs, outputs, name="toy_resnet")
    model.summary()
    model.compile(
        optimizer=keras.optimizers.Adam(3e-3),
        loss=keras.losses.SparseCategoricalCrossentropy(),
        metrics=[keras.metrics.SparseCategoricalAccuracy(name="acc")],
    )
    x_train, y_train = pictures(600, 32, 3, 10, seed=0)
    best = tmp_path / "best.safetensors"
    history = model.fit(
        x_train / 255,
        y_train,
        batch_size=64,
        epochs=10,
        validation_split=0.2,
        callbacks=[
            keras.callbacks.EarlyStopping(monitor="val_loss", patience=5),
            keras.callbacks.ModelCheckpoint(str(best), save_best_only=True),
            keras.callbacks.ReduceLROnPlateau(patience=3),
        ],
    )
    assert max(history.history["val_acc"]) > 0.9
    loaded = keras.models.load_model(best)
    loss, _ = loaded.evaluate(x_train / 255, y_train, verbose=0)
    assert loss < 0.5


def test_dense_network_on_flat_images():
    # tensorflow.org/tutorials/keras/classification
    train_images, train_labels = pictures(1000, 28, 1, 10, seed=0)
    train_images = train_images[..., 0] / 255.0
    model = keras.Sequential(
        [
            keras.layers.Flatten(input_shape=(28, 28)),
            keras.layers.Dense(128, activation="relu"),
            keras.layers.Dense(10),
        ]
    )
    model.compile(
        optimizer="adam",
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    model.fit(train_images, train_labels, epochs=5)
    probability_model = keras.Sequential([model, keras.layers.Softmax()])
    predictions = probability_model.predict(train_images)
    np.testing.assert_allclose(predictions.sum(axis=1), 1, rtol=1e-5)
    assert (np.argmax(predictions, axis=1) == train_labels).mean() > 0.95
