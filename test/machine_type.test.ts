import { expect, test } from "bun:test";
import { receiverConfig, senderConfig } from "../lib/session/session_config.ts";
import { expectsSwitchoverAck } from "../lib/session/switchover_ack.ts";
import { hasUnaskedSwitchoverAck, machineSyncMode } from "../lib/wire/machine_type.ts";
import { RamBlock } from "../mod.ts";

test("machine types up to 8.0 synchronise after each section, all others after each round", () => {
  for (const machine of ["pc-i440fx-2.12", "pc-q35-7.2", "pc-i440fx-8.0"]) {
    expect(machineSyncMode(machine)).toBe("section");
  }
  for (const machine of ["pc-q35-8.1", "pc-q35-10.0", "pc-q35-11.1", "microvm", "multifd", ""]) {
    expect(machineSyncMode(machine)).toBe("round");
  }
});

test("machine types up to 11.0 acknowledge the switch-over without being asked", () => {
  for (const machine of ["pc-q35-8.2", "pc-i440fx-10.2", "pc-q35-11.0"]) {
    expect(hasUnaskedSwitchoverAck(machine)).toBe(true);
    expect(expectsSwitchoverAck(true, machine)).toBe(true);
    expect(expectsSwitchoverAck(false, machine)).toBe(false);
  }
  for (const machine of ["pc-q35-11.1", "pc-i440fx-12.0", "microvm", "multifd"]) {
    expect(hasUnaskedSwitchoverAck(machine)).toBe(false);
    expect(expectsSwitchoverAck(true, machine)).toBe(false);
    expect(expectsSwitchoverAck("legacy", machine)).toBe(true);
  }
});

test("switchover-ack takes true, false and legacy, and needs a return path", () => {
  const endpoint = "127.0.0.1:1";
  const blocks = [RamBlock.allocate("pc.ram", 4096)];
  const sender = { endpoint, blocks, machine: "pc-q35-11.0" };
  expect(senderConfig({ ...sender, switchoverAck: true }).switchoverAck).toBe(true);
  expect(senderConfig({ ...sender, machine: "pc-q35-11.1", switchoverAck: true })).toMatchObject({
    switchoverAck: false,
  });
  expect(() => senderConfig({ ...sender, switchoverAck: true, returnPath: false })).toThrow(
    /no return path/,
  );
  const wrong = "counted" as "legacy";
  expect(() => senderConfig({ ...sender, switchoverAck: wrong })).toThrow(TypeError);
  expect(() => receiverConfig({ endpoint, switchoverAck: wrong })).toThrow(TypeError);
});
