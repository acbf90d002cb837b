// A reject gate: passes a part only while everything docs/wire.md, section 5, asks for holds.
//
//     mcs Gate.cs SkrdRecord.cs && mono Gate.exe tcp://127.0.0.1:5555
//     mono Gate.exe tcp://edge07:5555 server.key press3.secret    where the box uses keys (section 10)
//
// Needs libzmq (libzmq.so, libzmq.dll) beside the program or on the system. One line per part on
// stdout: its number, its verdict, PASS or REJECT. Replace `Act` with your output. After lost events
// everything is a reject until the program is started anew: somebody must have looked.
using System;
using System.Diagnostics;
using System.IO;
using System.Runtime.InteropServices;
using System.Text;
using System.Text.RegularExpressions;

static class Gate
{
    const int SUB = 2, SUBSCRIBE = 6, RCVMORE = 13, LINGER = 17, RECONNECT_IVL = 18;
    const int RECONNECT_IVL_MAX = 21, RCVHWM = 24, RCVTIMEO = 27, CURVE_PUBLICKEY = 48;
    const int CURVE_SECRETKEY = 49, CURVE_SERVERKEY = 50, HEARTBEAT_IVL = 75;
    const int HEARTBEAT_TIMEOUT = 77, CONNECT_TIMEOUT = 79;
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

    // One of the 40-character keys of a key file.
    static void SetKey(int option, string path, string which)
    {
        var found = Regex.Match(File.ReadAllText(path), "\"" + which + "\": \"([^\"]{40})\"");
        if (!found.Success) throw new InvalidDataException(path + " holds no key");
        var key = Encoding.ASCII.GetBytes(found.Groups[1].Value + "\0");
        zmq_setsockopt(subscriber, option, key, (UIntPtr)key.Length);
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

    // The number after "key": in a header, or -1. Who needs more should use a JSON library.
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
        if (arguments.Length != 1 && arguments.Length != 3)
        {
            Console.Error.WriteLine("usage: Gate tcp://HOST:5555 [server.key client.secret]");
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
        try
        {
            if (arguments.Length == 3)
            {
                SetKey(CURVE_SERVERKEY, arguments[1], "public");
                SetKey(CURVE_PUBLICKEY, arguments[2], "public");
                SetKey(CURVE_SECRETKEY, arguments[2], "secret");
            }
        }
        catch (Exception problem)
        {
            Console.Error.WriteLine(problem.Message);
            return 2;
        }
        foreach (var kind in new[] { "res/", "st/", "al/", "hb/" })
        {
            var prefix = Encoding.ASCII.GetBytes(kind);
            zmq_setsockopt(subscriber, SUBSCRIBE, prefix, (UIntPtr)prefix.Length);
        }
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
            // Another major version must not be interpreted.
            if (!json.StartsWith("{\"v\":\"1.", StringComparison.Ordinal)) continue;
            long seq = Number(json, "seq");
            long sentNs = Number(json, kind == "res" ? "mono_pub" : "mono");
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
