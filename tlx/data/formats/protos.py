"""Protobuf messages without generated code."""

from google.protobuf import descriptor_pb2, descriptor_pool, message, message_factory, text_format


def message_class(description: str, name: str) -> type[message.Message]:
    """Return the class of the message `name` that a FileDescriptorProto in text form describes.

    It lives in a pool of its own, so that other libraries' messages of the same name are not in its way.
    """
    pool = descriptor_pool.DescriptorPool()
    pool.Add(text_format.Parse(description, descriptor_pb2.FileDescriptorProto()))
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(name))
