/* A reject gate: passes a part only while everything docs/wire.md asks for holds.
 *
 *     cc -std=c99 -Wall -o gate gate.c -lzmq
 *     gate tcp://127.0.0.1:5555
 *     gate tcp://edge07:5555 server.key press3.secret      where the box uses keys (section 10)
 *
 * One line per part on stdout: its number, its verdict, PASS or REJECT. Replace `act` with your
 * output. After lost events everything is a reject until the program is started anew: somebody must
 * have looked. With -DSKRD_NO_ZMQ_H it builds where only the library is installed, not its header.
 */
#define _POSIX_C_SOURCE 199309L
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "skrd_record.h"
#ifdef SKRD_NO_ZMQ_H
#include "zmq_few.h"
#else
#include <zmq.h>
#endif

#define SILENCE_MS 1500 /* three heartbeats */
#define MAX_AGE_MS 1000
#define WINDOW_MS 30000

static int starts(const char *text, const char *with) { return !strncmp(text, with, strlen(with)); }

static double now_ms(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1e3 + t.tv_nsec / 1e6;
}

/* The number after "key": in a header, or -1. The headers are flat enough at these keys; a program
 * that needs more of them should use a JSON library. */
static int64_t number(const char *json, const char *key) {
    const char *at = strstr(json, key);
    return at ? strtoll(at + strlen(key), NULL, 10) : -1;
}

/* One of the 40-character keys of a key file. 0 when the file has none. */
static int read_key(const char *path, const char *which, char key[41]) {
    char text[1024];
    FILE *file = fopen(path, "r");
    if (!file) return 0;
    text[fread(text, 1, sizeof text - 1, file)] = 0;
    fclose(file);
    const char *at = strstr(text, which);
    return at && sscanf(at + strlen(which), ": \"%40[^\"]", key) == 1 && strlen(key) == 40;
}

static void act(const skrd_record *r, int pass) {
    printf("%" PRIu64 " %s %s\n", r->seq, skrd_verdict_name(r), pass ? "PASS" : "REJECT");
    fflush(stdout);
}

int main(int argc, char **argv) {
    char server[41], own[41], secret[41];
    if (argc != 2 && argc != 4) {
        fprintf(stderr, "usage: gate tcp://HOST:5555 [server.key client.secret]\n");
        return 2;
    }
    if (argc == 4 && !(read_key(argv[2], "\"public\"", server) &&
                       read_key(argv[3], "\"public\"", own) &&
                       read_key(argv[3], "\"secret\"", secret))) {
        fprintf(stderr, "%s or %s holds no key\n", argv[2], argv[3]);
        return 2;
    }
    void *context = zmq_ctx_new();
    void *sub = zmq_socket(context, ZMQ_SUB);
    int ivl = 500, timeout = 2000, connecting = 1000, reconnect = 100, reconnect_max = 1000;
    int linger = 0, room = 10000;
    zmq_setsockopt(sub, ZMQ_RCVHWM, &room, sizeof room);
    zmq_setsockopt(sub, ZMQ_HEARTBEAT_IVL, &ivl, sizeof ivl);
    zmq_setsockopt(sub, ZMQ_HEARTBEAT_TIMEOUT, &timeout, sizeof timeout);
    zmq_setsockopt(sub, ZMQ_CONNECT_TIMEOUT, &connecting, sizeof connecting);
    zmq_setsockopt(sub, ZMQ_RECONNECT_IVL, &reconnect, sizeof reconnect);
    zmq_setsockopt(sub, ZMQ_RECONNECT_IVL_MAX, &reconnect_max, sizeof reconnect_max);
    zmq_setsockopt(sub, ZMQ_LINGER, &linger, sizeof linger);
    if (argc == 4) {
        zmq_setsockopt(sub, ZMQ_CURVE_SERVERKEY, server, sizeof server);
        zmq_setsockopt(sub, ZMQ_CURVE_PUBLICKEY, own, sizeof own);
        zmq_setsockopt(sub, ZMQ_CURVE_SECRETKEY, secret, sizeof secret);
    }
    zmq_setsockopt(sub, ZMQ_SUBSCRIBE, "res/", 4);
    zmq_setsockopt(sub, ZMQ_SUBSCRIBE, "st/", 3);
    zmq_setsockopt(sub, ZMQ_SUBSCRIBE, "al/", 3);
    zmq_setsockopt(sub, ZMQ_SUBSCRIBE, "hb/", 3);
    if (zmq_connect(sub, argv[1]) != 0) {
        fprintf(stderr, "cannot connect to %s: %s\n", argv[1], zmq_strerror(zmq_errno()));
        return 2;
    }

    char boot[32] = "";
    int64_t last_seq = -1; /* -1: nothing heard yet */
    int contiguous = 1, ready = 0, bye = 0;
    double last_heard_ms = now_ms(), window_ms = 0, quickest = 0, quickest_before = 0;
    while (!bye) {
        char topic[256], header[8193];
        unsigned char record[SKRD_RECORD_BYTES + 1];
        zmq_pollitem_t item = {sub, 0, ZMQ_POLLIN, 0};
        if (zmq_poll(&item, 1, 100) <= 0) {
            if (ready && now_ms() - last_heard_ms > SILENCE_MS) {
                ready = 0;
                fprintf(stderr, "SILENCE: reject everything\n");
            }
            continue;
        }
        /* zmq_recv gives the true length and cuts what does not fit: too long is refused below. */
        int n_topic = zmq_recv(sub, topic, sizeof topic - 1, 0), n_header = -1, n_record = -1;
        int parts = 1, more = 0;
        size_t size = sizeof more;
        while (zmq_getsockopt(sub, ZMQ_RCVMORE, &more, &size) == 0 && more) {
            int n = parts == 1   ? (n_header = zmq_recv(sub, header, sizeof header - 1, 0))
                    : parts == 2 ? (n_record = zmq_recv(sub, record, sizeof record, 0))
                                 : zmq_recv(sub, NULL, 0, 0);
            if (n < 0) break;
            parts++;
        }
        if (parts != 3 || n_topic < 0 || n_topic >= (int)sizeof topic || n_header < 0 ||
            n_header >= (int)sizeof header)
            continue;
        topic[n_topic] = header[n_header] = 0;
        if (!starts(header, "{\"v\":\"1.")) continue; /* another major version */
        const char *boot_at = strstr(header, "\"boot\":\"");
        int is_result = starts(topic, "res/");
        int64_t seq = number(header, "\"seq\":");
        int64_t sent_ns = number(header, is_result ? "\"mono_pub\":" : "\"mono\":");
        if (!boot_at || seq < 0 || sent_ns < 0) continue;
        double heard_ms = now_ms(), way = heard_ms - sent_ns / 1e6;
        if (strncmp(boot, boot_at + 8, 16) != 0) { /* a new process: not ready until it says so */
            if (boot[0] && seq <= last_seq) last_seq = 0;
            snprintf(boot, sizeof boot, "%.16s", boot_at + 8);
            ready = 0;
            quickest = quickest_before = way;
            window_ms = heard_ms;
        }
        int numbered = !starts(topic, "hb/");
        if (last_seq >= 0 && seq != last_seq + numbered) {
            contiguous = 0;
            fprintf(stderr, "LOST events before %" PRId64 "\n", seq);
        }
        last_seq = seq;
        last_heard_ms = heard_ms;
        /* The two clocks differ by an unknown constant: compare with the quickest message of the
         * last 30 to 60 s. */
        if (heard_ms - window_ms > WINDOW_MS) {
            quickest_before = quickest;
            quickest = way;
            window_ms = heard_ms;
        }
        if (way < quickest) quickest = way;
        int fresh = way - (quickest < quickest_before ? quickest : quickest_before) <= MAX_AGE_MS;
        if (starts(topic, "hb/")) {
            ready = strstr(header, "\"state\":\"RUNNING\"") && strstr(header, "\"ready\":true");
        } else if (starts(topic, "st/")) {
            ready = ready && strstr(header, "\"state\":\"RUNNING\"") != NULL;
            bye = strstr(header, "\"state\":\"BYE\"") != NULL;
        } else if (is_result) {
            skrd_record r;
            if (skrd_read(record, (size_t)(n_record < 0 ? 0 : n_record), &r))
                act(&r, ready && contiguous && fresh && r.verdict == SKRD_OK &&
                            !(r.flags & SKRD_LATE));
        }
    }
    zmq_close(sub);
    zmq_ctx_term(context);
    return contiguous ? 0 : 6;
}
