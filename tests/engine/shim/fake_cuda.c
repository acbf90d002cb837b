/* A libcuda.so.1 for tests without a GPU: real pycuda runs on it, with the real kernels.
 *
 * Device memory is malloc'ed and poisoned, a module image is the text "HOSTSO:<library>" naming the
 * kernels compiled for the CPU, streams run their work at once, and a stream in capture records it
 * instead. Misuse that a driver would refuse is refused: work without a current context, work on
 * the default stream during a capture, copies past the end of an allocation, freeing twice,
 * synchronising a capturing stream. fake_live() and fake_context_depth() let tests look for leaks.
 * Functions pycuda links but we never call are generated and return CUDA_ERROR_NOT_SUPPORTED.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { OK = 0, INVALID = 1, OOM = 2, NO_CONTEXT = 201, BAD_IMAGE = 200, NOT_FOUND = 500,
       NOT_READY = 600, CAPTURING = 900 };
typedef uint64_t Address;
typedef void (*Kernel)(unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, const void *);
typedef void (*HostFunction)(void *);

/* ---- allocations: every address a copy uses must lie in one ------------------------------------ */
typedef struct Allocation { char *base; size_t size; struct Allocation *next; } Allocation;
static Allocation *allocations;
static long live_allocations, live_graphs, live_streams, live_events;
static void remember(char *base, size_t size) {
  Allocation *a = malloc(sizeof *a);
  a->base = base; a->size = size; a->next = allocations; allocations = a; live_allocations++;
}
static int forget(char *base) {
  for (Allocation **a = &allocations; *a; a = &(*a)->next)
    if ((*a)->base == base) {
      Allocation *gone = *a; *a = gone->next;
      memset(gone->base, 0xDD, gone->size);  /* use after free becomes visible */
      free(gone->base); free(gone); live_allocations--;
      return OK;
    }
  return INVALID;
}
static int covers(Address address, size_t size) {
  for (Allocation *a = allocations; a; a = a->next)
    if ((char *)address >= a->base && (char *)address + size <= a->base + a->size) return 1;
  return 0;
}
int cuMemAlloc_v2(Address *out, size_t size);

/* ---- contexts: one, with a stack per thread ---------------------------------------------------- */
static int the_context, retained;
static __thread void *stack[64];
static __thread int depth;
#define NEED_CONTEXT() do { if (!depth) return NO_CONTEXT; } while (0)
long fake_context_depth(void) { return depth; }
long fake_live(int what) {
  return what == 0 ? live_allocations : what == 1 ? live_graphs : what == 2 ? live_streams : live_events;
}

/* ---- streams and graphs -------------------------------------------------------------------------- */
enum Kind { LAUNCH, COPY, HOST };
typedef struct Work {
  enum Kind kind; Kernel kernel; unsigned dims[6]; void *parameters; size_t size;
  void *to; const void *from; HostFunction host; void *data; struct Work *next;
} Work;
typedef struct { int capturing; Work *first, **end; } Stream;
typedef struct { Work *first; } Graph;
static Stream default_stream;
static int captures;
static int hang;  /* events never complete: what a hung GPU looks like */
void fake_hang(int on) { hang = on; }

static void run(const Work *w) {
  if (w->kind == LAUNCH)
    w->kernel(w->dims[0], w->dims[1], w->dims[2], w->dims[3], w->dims[4], w->dims[5], w->parameters);
  else if (w->kind == COPY) memcpy(w->to, w->from, w->size);
  else w->host(w->data);
}
static int enqueue(Stream *stream, Work work) {
  NEED_CONTEXT();
  if (!stream) { if (captures) return CAPTURING; stream = &default_stream; }
  if (!stream->capturing) { run(&work); return OK; }
  Work *kept = malloc(sizeof *kept);
  *kept = work; kept->next = NULL;
  if (work.kind == LAUNCH) { kept->parameters = malloc(work.size); memcpy(kept->parameters, work.parameters, work.size); }
  *stream->end = kept; stream->end = &kept->next;
  return OK;
}
int cuStreamBeginCapture_v2(Stream *s, int mode) {
  NEED_CONTEXT();
  if (!s || s->capturing || mode != 1) return CAPTURING;
  s->capturing = 1; s->first = NULL; s->end = &s->first; captures++;
  return OK;
}
int cuStreamEndCapture(Stream *s, Graph **out) {
  if (!s || !s->capturing) return CAPTURING;
  Graph *g = calloc(1, sizeof *g);
  g->first = s->first; s->capturing = 0; captures--; live_graphs++; *out = g;
  return OK;
}
int cuGraphInstantiateWithFlags(Graph **out, Graph *g, unsigned long long flags) {
  (void)flags; NEED_CONTEXT();
  *out = calloc(1, sizeof **out); (*out)->first = g->first; live_graphs++;
  return OK;
}
int cuGraphUpload(Graph *g, Stream *s) { (void)s; return g ? OK : INVALID; }
int cuGraphLaunch(Graph *g, Stream *s) {
  NEED_CONTEXT();
  if (!g || !s || s->capturing) return INVALID;
  for (Work *w = g->first; w; w = w->next) run(w);
  return OK;
}
int cuGraphExecDestroy(Graph *g) { free(g); live_graphs--; return OK; }
int cuGraphDestroy(Graph *g) {
  for (Work *w = g->first; w;) { Work *n = w->next; if (w->kind == LAUNCH) free(w->parameters); free(w); w = n; }
  free(g); live_graphs--;
  return OK;
}
int cuStreamCreate(Stream **s, unsigned f) { (void)f; NEED_CONTEXT(); *s = calloc(1, sizeof **s); live_streams++; return OK; }
int cuStreamDestroy_v2(Stream *s) { free(s); live_streams--; return OK; }
int cuStreamSynchronize(Stream *s) { NEED_CONTEXT(); return s && s->capturing ? CAPTURING : OK; }
int cuStreamQuery(Stream *s) { (void)s; return hang ? NOT_READY : OK; }
int cuStreamWaitEvent(Stream *s, void *e, unsigned f) { (void)s; (void)e; (void)f; return OK; }
int cuLaunchHostFunc(Stream *s, HostFunction f, void *data) { return enqueue(s, (Work){.kind = HOST, .host = f, .data = data}); }
int cuEventCreate(void **e, unsigned f) { (void)f; NEED_CONTEXT(); *e = malloc(1); live_events++; return OK; }
int cuEventDestroy_v2(void *e) { free(e); live_events--; return OK; }
int cuEventRecord(void *e, Stream *s) { (void)e; NEED_CONTEXT(); return s && s->capturing ? CAPTURING : OK; }
int cuEventSynchronize(void *e) { (void)e; return OK; }
int cuEventQuery(void *e) { (void)e; return hang ? NOT_READY : OK; }

/* ---- device ------------------------------------------------------------------------------------ */
static int integrated;
void fake_integrated(int on) { integrated = on; }
int cuInit(unsigned f) { (void)f; return OK; }
int cuDriverGetVersion(int *v) { *v = 13000; return OK; }
int cuDeviceGetCount(int *n) { *n = 1; return OK; }
int cuDeviceGet(int *d, int i) { *d = i; return i ? 101 : OK; }
static const char *name;
void fake_name(const char *other) { name = other ? strdup(other) : NULL; }
int cuDeviceGetName(char *n, int size, int d) {
  (void)d; snprintf(n, size, "%s", name ? name : "fake GPU on the CPU"); return OK;
}
int cuDeviceGetAttribute(int *v, int a, int d) {
  (void)d; *v = a == 75 ? 8 : a == 76 ? 7 : a == 18 ? integrated : a == 1 ? 1024 : a == 10 ? 32 : 0;
  return OK;
}
int cuDevicePrimaryCtxRetain(void **c, int d) { (void)d; *c = &the_context; retained++; return OK; }
int cuDevicePrimaryCtxRelease_v2(int d) { (void)d; return retained-- > 0 ? OK : NO_CONTEXT; }
int cuCtxPushCurrent_v2(void *c) { if (depth == 64 || c != &the_context) return INVALID; stack[depth++] = c; return OK; }
int cuCtxPopCurrent_v2(void **c) { NEED_CONTEXT(); void *top = stack[--depth]; if (c) *c = top; return OK; }
int cuCtxGetCurrent(void **c) { *c = depth ? stack[depth - 1] : NULL; return OK; }
int cuCtxGetDevice(int *d) { *d = 0; return depth ? OK : NO_CONTEXT; }
int cuCtxSynchronize(void) { NEED_CONTEXT(); return captures ? CAPTURING : OK; }

/* ---- memory ------------------------------------------------------------------------------------ */
int cuMemAlloc_v2(Address *out, size_t size) {
  NEED_CONTEXT();
  void *p;
  if (!size) return INVALID;
  if (posix_memalign(&p, 256, size)) return OOM;
  memset(p, 0xCB, size); remember(p, size); *out = (Address)p;
  return OK;
}
int cuMemFree_v2(Address p) { NEED_CONTEXT(); return forget((char *)p); }
int cuMemHostAlloc(void **p, size_t size, unsigned f) {
  (void)f; NEED_CONTEXT();
  if (posix_memalign(p, 4096, size)) return OOM;
  memset(*p, 0xCB, size); remember(*p, size);
  return OK;
}
int cuMemFreeHost(void *p) { NEED_CONTEXT(); return forget(p); }
int cuMemHostGetDevicePointer_v2(Address *d, void *p, unsigned f) { (void)f; *d = (Address)p; return covers((Address)p, 1) ? OK : INVALID; }
int cuMemcpyHtoD_v2(Address d, const void *s, size_t n) { NEED_CONTEXT(); if (!covers(d, n)) return INVALID; memcpy((void *)d, s, n); return OK; }
int cuMemcpyDtoH_v2(void *d, Address s, size_t n) { NEED_CONTEXT(); if (!covers(s, n)) return INVALID; memcpy(d, (void *)s, n); return OK; }
int cuMemcpyHtoDAsync_v2(Address d, const void *s, size_t n, Stream *t) {
  return covers(d, n) ? enqueue(t, (Work){.kind = COPY, .to = (void *)d, .from = s, .size = n}) : INVALID;
}
int cuMemcpyDtoHAsync_v2(void *d, Address s, size_t n, Stream *t) {
  return covers(s, n) ? enqueue(t, (Work){.kind = COPY, .to = d, .from = (void *)s, .size = n}) : INVALID;
}

/* ---- modules and launches ------------------------------------------------------------------------ */
int cuModuleLoadDataEx(void **m, const void *image, unsigned n, int *o, void **v) {
  NEED_CONTEXT();
  /* CU_JIT_INFO/ERROR_LOG_BUFFER_SIZE_BYTES: on return, how much of each log was filled. */
  for (unsigned i = 0; i < n; i++) if (o[i] == 4 || o[i] == 6) v[i] = NULL;
  if (strncmp(image, "HOSTSO:", 7)) return BAD_IMAGE;
  char path[4096];
  snprintf(path, sizeof path, "%s", (const char *)image + 7);
  path[strcspn(path, "\n")] = 0;
  *m = dlopen(path, RTLD_NOW);
  return *m ? OK : BAD_IMAGE;
}
int cuModuleLoadData(void **m, const void *image) { return cuModuleLoadDataEx(m, image, 0, 0, 0); }
int cuModuleUnload(void *m) { (void)m; return OK; }
int cuModuleGetFunction(void **f, void *m, const char *name) {
  char host[256];
  snprintf(host, sizeof host, "host_%s", name);
  *f = dlsym(m, host);
  return *f ? OK : NOT_FOUND;
}
int cuFuncSetBlockShape(void *f, int x, int y, int z) { (void)f; (void)x; (void)y; (void)z; return OK; }
int cuFuncGetAttribute(int *v, int a, void *f) { (void)a; (void)f; *v = 0; return OK; }
int cuLaunchKernel(Kernel f, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz,
                   unsigned shared, Stream *s, void **parameters, void **extra) {
  (void)shared;
  void *buffer = NULL; size_t size = 0;
  if (parameters || !extra || !gx || !gy || !gz || !bx || !by || !bz || bx * by * bz > 1024) return INVALID;
  for (int i = 0; extra[i]; i += 2) {
    if ((intptr_t)extra[i] == 1) buffer = extra[i + 1];
    if ((intptr_t)extra[i] == 2) size = *(size_t *)extra[i + 1];
  }
  return enqueue(s, (Work){.kind = LAUNCH, .kernel = f, .dims = {gx, gy, gz, bx, by, bz}, .parameters = buffer, .size = size});
}
int cuGetErrorString(int e, const char **p) { (void)e; *p = "refused by the fake driver"; return OK; }
int cuGetErrorName(int e, const char **p) { (void)e; *p = "FAKE_ERROR"; return OK; }
