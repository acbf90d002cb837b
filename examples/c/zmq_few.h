/* The few declarations of libzmq 4.2 and later that gate.c uses, for computers that have the
 * library without its header. Where zmq.h is installed, use that. */
#ifndef ZMQ_FEW_H
#define ZMQ_FEW_H

#include <stddef.h>

enum {
    ZMQ_SUB = 2,
    ZMQ_SUBSCRIBE = 6,
    ZMQ_RCVMORE = 13,
    ZMQ_LINGER = 17,
    ZMQ_RECONNECT_IVL = 18,
    ZMQ_RECONNECT_IVL_MAX = 21,
    ZMQ_RCVHWM = 24,
    ZMQ_CURVE_PUBLICKEY = 48,
    ZMQ_CURVE_SECRETKEY = 49,
    ZMQ_CURVE_SERVERKEY = 50,
    ZMQ_HEARTBEAT_IVL = 75,
    ZMQ_HEARTBEAT_TIMEOUT = 77,
    ZMQ_CONNECT_TIMEOUT = 79,
    ZMQ_POLLIN = 1
};

typedef struct {
    void *socket;
    int fd; /* POSIX */
    short events;
    short revents;
} zmq_pollitem_t;

void *zmq_ctx_new(void);
int zmq_ctx_term(void *context);
void *zmq_socket(void *context, int type);
int zmq_close(void *socket);
int zmq_connect(void *socket, const char *endpoint);
int zmq_setsockopt(void *socket, int option, const void *value, size_t length);
int zmq_getsockopt(void *socket, int option, void *value, size_t *length);
int zmq_recv(void *socket, void *buffer, size_t length, int flags);
int zmq_poll(zmq_pollitem_t *items, int count, long timeout_ms);
int zmq_errno(void);
const char *zmq_strerror(int number);

#endif
