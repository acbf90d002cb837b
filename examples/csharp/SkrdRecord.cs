// The 64-byte record of SKRD/1 (docs/wire.md, section 4). Any .NET or Mono; no library needed.
//
//     SkrdRecord record;
//     if (SkrdRecord.TryRead(bytes, bytes.Length, out record)) ...   // size, magic, version, CRC-32
using System.IO;

public enum SkrdVerdict : byte { None = 0, Ok = 1, Ng = 2, Review = 3, Err = 4 }

public struct SkrdRecord
{
    public const int Bytes = 64;
    public const byte Late = 1, Simulated = 2, NotEvaluated = 4, Alarm = 8, Toggle = 16;

    public SkrdVerdict Verdict;
    public byte Flags;
    public ulong Seq;
    public uint BootLo, TriggerSeq;
    public long CapturedNs;
    public uint TotalUs;
    public float Score, Threshold;
    public ushort RegionId, Regions;
    public uint OkCount, NgCount, ErrCount;

    public string VerdictName { get { return Verdict.ToString().ToLowerInvariant(); } }

    // False, and an empty record, when the bytes are none.
    public static bool TryRead(byte[] bytes, int length, out SkrdRecord record)
    {
        record = new SkrdRecord();
        if (length != Bytes || bytes.Length < Bytes) return false;
        // BinaryReader reads little-endian on every machine.
        using (var reader = new BinaryReader(new MemoryStream(bytes, 0, Bytes)))
        {
            if (reader.ReadUInt32() != 0x31524B53) return false; // "SKR1"
            var version = reader.ReadUInt16();
            var verdict = reader.ReadByte();
            var found = new SkrdRecord
            {
                Verdict = (SkrdVerdict)verdict,
                Flags = reader.ReadByte(),
                Seq = reader.ReadUInt64(),
                BootLo = reader.ReadUInt32(),
                TriggerSeq = reader.ReadUInt32(),
                CapturedNs = reader.ReadInt64(),
                TotalUs = reader.ReadUInt32(),
                Score = reader.ReadSingle(),
                Threshold = reader.ReadSingle(),
                RegionId = reader.ReadUInt16(),
                Regions = reader.ReadUInt16(),
                OkCount = reader.ReadUInt32(),
                NgCount = reader.ReadUInt32(),
                ErrCount = reader.ReadUInt32(),
            };
            if (reader.ReadUInt32() != Crc32(bytes, 60)) return false;
            if (version != 1 || verdict > (byte)SkrdVerdict.Err) return false;
            record = found;
            return true;
        }
    }

    static uint Crc32(byte[] bytes, int length)
    {
        uint crc = 0xFFFFFFFF;
        for (int i = 0; i < length; i++)
        {
            crc ^= bytes[i];
            for (int bit = 0; bit < 8; bit++) crc = (crc >> 1) ^ ((crc & 1) != 0 ? 0xEDB88320 : 0);
        }
        return ~crc;
    }
}
