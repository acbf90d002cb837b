// A reject gate: passes a part only while everything docs/wire.md, section 5, asks for holds.
//
//     mcs Gate.cs SkrdRecord.cs && mono Gate.exe tcp://127.0.0.1:5555
//
// Needs libzmq (libzmq.so, libzmq.dll) beside the program or on the system. One line per part on
// stdout: its number, its verdict, PASS or REJECT. Replace `Act` with your output. After lost events
// everything is a reject until the program is started anew: somebody must have looked.
using System;
using System.Diagnostics;
using System.Runtime.InteropServices;
using System.Text;

static class Gate
{
    const int SUB = 2, SUBSCRIBE = 6, RCVMORE = 13, LINGER = 17, RECONNECT_IVL = 18;
    const int RECONNECT_IVL_MAX = 21, RCVHWM = 24, RCVTIMEO = 27, HEARTBEAT_IVL = 75, HEARTBEAT_TIMEOUT = 77;
    const int CONNECT_TIMEOUT = 79;
    const double SilenceMs = 1500; // three heartbeats
    const double MaxAgeMs = 1000;
    const double WindowMs = 30000;

    [DllImport("libzmq")] static extern IntPtr zmq_ctx_new();
    [DllImport("libzmq")] static extern int zmq_ctx_term(IntPtr context);
    [DllImport("libzmq")] static extern IntPtr zmq_socket(IntPtr context, int type);
    [DllImport("libzmq")] static extern int zmq_close(IntPtr socket);
    [DllImport("libzmq")] static extern int zmq_connect(IntPtr socket, string endpoint);
    [DllImport("libzmq")]
    static extern int zmq_setsockopt(IntPtr socket, int option, byte[] value, UIntPtr size);
    [DllImport("libzmq")]
    static extern int zmq_getsockopt(IntPtr socket, int option, ref int value, ref UIntPtr size);
    [DllImport("libzmq")]
    static extern int zmq_recv(IntPtr socket, byte[] buffer, UIntPtr size, int flags);

    static IntPtr subscriber;
    static readonly byte[] topic = new byte[256], header = new byte[8193], record = new byte[65];

    static void Set(int option, int value)
    {
        zmq_setsockopt(subscriber, option, BitConverter.GetBytes(value), (UIntPtr)4);
    }

    // The true length; what does not fit is cut off, and refused by the caller. -1: nothing came.
    static int Receive(byte[] buffer)
    {
        return zmq_recv(subscriber, buffer, (UIntPtr)buffer.Length, 0);
    }

    static bool More()
    {
        int more = 0;
        var size = (UIntPtr)4;
        return zmq_getsockopt(subscriber, RCVMORE, ref more, ref size) == 0 && more != 0;
    }

    static double NowMs()
    {
        return Stopwatch.GetTimestamp() * 1000.0 / Stopwatch.Frequency;
    }

    // The number after "key": in a header, or -1. A program that needs more should use a JSON library.
    static long Number(string json, string key)
    {
        int at = json.IndexOf("\"" + key + "\":", StringComparison.Ordinal);
        if (at < 0) return -1;
        int start = at + key.Length + 3, end = start;
        while (end < json.Length && (char.IsDigit(json[end]) || json[end] == '-')) end++;
        long value;
        return long.TryParse(json.Substring(start, end - start), out value) ? value : -1;
    }

    static void Act(SkrdRecord r, bool pass)
    {
        Console.WriteLine("{0} {1} {2}", r.Seq, r.VerdictName, pass ? "PASS" : "REJECT");
    }

    static int Main(string[] arguments)
    {
        if (arguments.Length != 1)
        {
            Console.Error.WriteLine("usage: Gate tcp://HOST:5555");
            return 2;
        }
        var context = zmq_ctx_new();
        subscriber = zmq_socket(context, SUB);
        Set(LINGER, 0);
        Set(RCVTIMEO, 100);
        Set(RCVHWM, 10000);
        Set(CONNECT_TIMEOUT, 1000);
        Set(RECONNECT_IVL, 100);
        Set(RECONNECT_IVL_MAX, 1000);
        Set(HEARTBEAT_IVL, 500);
        Set(HEARTBEAT_TIMEOUT, 2000);
        foreach (var kind in new[] { "res/", "st/", "al/", "hb/" })
            zmq_setsockopt(subscriber, SUBSCRIBE, Encoding.ASCII.GetBytes(kind), (UIntPtr)kind.Length);
        if (zmq_connect(subscriber, arguments[0]) != 0)
        {
            Console.Error.WriteLine("cannot connect to {0}", arguments[0]);
            return 2;
        }
        string boot = "";
        long lastSeq = -1; // -1: nothing heard yet
        bool contiguous = true, ready = false, bye = false;
        double heardMs = NowMs(), windowMs = 0, quickest = 0, quickestBefore = 0;
        while (!bye)
        {
            int topicLength = Receive(topic);
            if (topicLength < 0)
            {
                if (ready && NowMs() - heardMs > SilenceMs)
                {
                    ready = false;
                    Console.Error.WriteLine("SILENCE: reject everything");
                }
                continue;
            }
            int parts = 1, headerLength = -1, recordLength = -1;
            for (; More(); parts++)
            {
                if (parts == 1) headerLength = Receive(header);
                else if (parts == 2) recordLength = Receive(record);
                else Receive(new byte[0]);
            }
            if (parts != 3 || topicLength > topic.Length || headerLength < 0
                || headerLength > header.Length) continue;
            var kind = Encoding.ASCII.GetString(topic, 0, topicLength).Split('/')[0];
            var json = Encoding.UTF8.GetString(header, 0, headerLength);
            if (!json.StartsWith("{\"v\":\"1.", StringComparison.Ordinal)) continue; // another major version
            long seq = Number(json, "seq"), sentNs = Number(json, kind == "res" ? "mono_pub" : "mono");
            int bootAt = json.IndexOf("\"boot\":\"", StringComparison.Ordinal);
            if (seq < 0 || sentNs < 0 || bootAt < 0 || bootAt + 24 > json.Length) continue;
            double nowMs = NowMs(), way = nowMs - sentNs / 1e6;
            var newBoot = json.Substring(bootAt + 8, 16);
            if (newBoot != boot) // a new process: not ready until it says so
            {
                if (boot != "" && seq <= lastSeq) lastSeq = 0;
                boot = newBoot;
                ready = false;
                quickest = quickestBefore = way;
                windowMs = nowMs;
            }
            bool numbered = kind != "hb";
            if (lastSeq >= 0 && seq != lastSeq + (numbered ? 1 : 0))
            {
                contiguous = false;
                Console.Error.WriteLine("LOST events before {0}", seq);
            }
            lastSeq = seq;
            heardMs = nowMs;
            // The two clocks differ by an unknown constant: compare with the quickest message of
            // the last 30 to 60 s.
            if (nowMs - windowMs > WindowMs)
            {
                quickestBefore = quickest;
                quickest = way;
                windowMs = nowMs;
            }
            quickest = Math.Min(quickest, way);
            bool fresh = way - Math.Min(quickest, quickestBefore) <= MaxAgeMs;
            if (kind == "hb")
                ready = json.Contains("\"state\":\"RUNNING\"") && json.Contains("\"ready\":true");
            else if (kind == "st")
            {
                ready = ready && json.Contains("\"state\":\"RUNNING\"");
                bye = json.Contains("\"state\":\"BYE\"");
            }
            SkrdRecord r;
            if (kind == "res" && SkrdRecord.TryRead(record, recordLength, out r))
                Act(r, ready && contiguous && fresh && r.Verdict == SkrdVerdict.Ok
                       && (r.Flags & SkrdRecord.Late) == 0);
        }
        zmq_close(subscriber);
        zmq_ctx_term(context);
        return contiguous ? 0 : 6;
    }
}
