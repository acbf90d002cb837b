/* The C entry points that TensorRT's Python bindings import, each returning nothing. With them the
 * real bindings of any version can be imported and looked at on a machine without TensorRT. */
#define NOTHING(name) void *name(void) { return 0; }
NOTHING(createInferBuilder_INTERNAL)
NOTHING(createInferRefitter_INTERNAL)
NOTHING(createInferRuntime_INTERNAL)
NOTHING(getBuilderPluginRegistry)
NOTHING(getPluginRegistry)
NOTHING(initLibNvInferPlugins)
NOTHING(createNvOnnxParser_INTERNAL)
NOTHING(createNvOnnxParserRefitter_INTERNAL)
NOTHING(getInferLibVersion)
NOTHING(getNvOnnxParserVersion)
