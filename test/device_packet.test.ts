import { describe, expect, test } from "bun:test";
import {
  DEVICE_PACKET_BYTES,
  DevicePacketDecoder,
  encodeDevicePacket,
  encodeVfioHeader,
  VFIO_HEADER_BYTES,
  VfioHeaderDecoder,
} from "../lib/wire/device_packet.ts";
import { thrownBy } from "./kit/errors.ts";

const text = (value: string): Uint8Array => new TextEncoder().encode(value);
const devices = [
  { idBytes: text("0000:00:05.0/vfio"), instanceId: 0 },
  { idBytes: text("0000:00:05.0/vfio"), instanceId: 7 },
  { idBytes: text("model"), instanceId: 0x8000_0001 },
];
const PAYLOAD_MAX = 2_000_000;

function packet(device = devices[0]!, payloadBytes = 1000): DataView {
  const view = new DataView(new ArrayBuffer(DEVICE_PACKET_BYTES));
  encodeDevicePacket(view, device.idBytes, device.instanceId, payloadBytes);
  return view;
}

function decode(view: DataView): DevicePacketDecoder {
  const decoder = new DevicePacketDecoder(view, PAYLOAD_MAX);
  decoder.decode(devices);
  return decoder;
}

test("encodeDevicePacket() writes what the format description shows", () => {
  const view = packet({ idBytes: text("ab"), instanceId: 0x0102_0304 }, 0x0005_0607);
  const bytes = new Uint8Array(view.buffer);
  expect(bytes.subarray(0, 15).toHex()).toBe("112233440000000100000040616200");
  expect(bytes.subarray(14, 268).every((byte) => byte === 0)).toBe(true);
  expect(bytes.subarray(268).toHex()).toBe("0102030400050607");
});

test("encodeDevicePacket() leaves nothing of a longer id string behind", () => {
  const view = packet();
  encodeDevicePacket(view, text("x"), 0, 1);
  expect(new Uint8Array(view.buffer, 13, 255).every((byte) => byte === 0)).toBe(true);
});

test("DevicePacketDecoder finds the device by id string and instance", () => {
  for (const [index, device] of devices.entries()) {
    const { device: found, payloadBytes } = decode(packet(device, 4242));
    expect([found, payloadBytes]).toEqual([index, 4242]);
  }
});

describe("DevicePacketDecoder rejects", () => {
  const cases: readonly [string, string, (view: DataView) => void][] = [
    ["a wrong magic", "MAGIC", (view) => view.setUint32(0, 0x1122_3345)],
    ["a wrong version", "VERSION", (view) => view.setUint32(4, 2)],
    ["a SYNC flag", "FLAGS", (view) => view.setUint32(8, 0x41)],
    ["a compression flag", "FLAGS", (view) => view.setUint32(8, 0x44)],
    ["an id string without NUL", "IDSTR", (view) => new Uint8Array(view.buffer).fill(65, 12, 268)],
    ["an unknown id string", "DEVICE", (view) => view.setUint8(12, 65)],
    ["a longer id string", "DEVICE", (view) => view.setUint8(12 + 17, 65)],
    ["an unknown instance", "DEVICE", (view) => view.setUint32(268, 1)],
    ["an empty payload", "NEXT_PACKET_SIZE", (view) => view.setUint32(272, 0)],
    ["a payload above the limit", "NEXT_PACKET_SIZE", (view) => view.setUint32(272, 2_000_001)],
  ];
  for (const [what, field, spoil] of cases) {
    test(what, () => {
      const view = packet();
      spoil(view);
      expect(thrownBy(() => decode(view)).code).toBe(`ERR_MULTIFD_PACKET_${field}`);
    });
  }
});

test("VfioHeaderDecoder reads what encodeVfioHeader() writes, big-endian", () => {
  for (const [idx, config, hex] of [
    [0, false, "000000000000000000000000"],
    [0x0102_0304, true, "000000000102030400000001"],
    [0xffff_fffe, false, "00000000fffffffe00000000"],
  ] as const) {
    const view = new DataView(new ArrayBuffer(VFIO_HEADER_BYTES));
    encodeVfioHeader(view, idx, config);
    expect(new Uint8Array(view.buffer).toHex()).toBe(hex);
    const decoder = new VfioHeaderDecoder(view);
    decoder.decode(VFIO_HEADER_BYTES);
    expect([decoder.idx, decoder.config]).toEqual([idx, config]);
  }
});

describe("VfioHeaderDecoder rejects", () => {
  const cases: readonly [string, string, (view: DataView) => void, number?][] = [
    ["a payload shorter than itself", "NEXT_PACKET_SIZE", () => {}, 11],
    ["a version other than 0", "VFIO_VERSION", (view) => view.setUint32(0, 1)],
    ["the index that is never used", "VFIO_IDX", (view) => view.setUint32(4, 0xffff_ffff)],
    ["an unknown flag", "VFIO_FLAGS", (view) => view.setUint32(8, 2)],
  ];
  for (const [what, field, spoil, payloadBytes = 100] of cases) {
    test(what, () => {
      const view = new DataView(new ArrayBuffer(VFIO_HEADER_BYTES));
      encodeVfioHeader(view, 3, false);
      spoil(view);
      expect(thrownBy(() => new VfioHeaderDecoder(view).decode(payloadBytes)).code).toBe(
        `ERR_MULTIFD_PACKET_${field}`,
      );
    });
  }
});
