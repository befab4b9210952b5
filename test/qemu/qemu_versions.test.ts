import { expect, test } from "bun:test";
import { Qemu } from "./qemu.ts";
import { QEMU_BINARIES, qemuMissing, type QemuVersion } from "./qemu_versions.ts";
import { asObject } from "./qmp.ts";

const majorOf: Readonly<Record<QemuVersion, readonly number[]>> = {
  "7.2": [7],
  "10.0": [9, 10, 11, 12],
  "11.1": [11, 12],
};

for (const version of Object.keys(QEMU_BINARIES) as QemuVersion[]) {
  const missing = qemuMissing(version);
  const name = `QEMU ${version} starts from where it is, with its own modules and firmware`;
  test.skipIf(missing !== null)(missing === null ? name : `${name} (${missing})`, async () => {
    await using vm = await Qemu.start({ name: version, version, memoryMib: 32 });
    expect(await vm.status()).toBe("running");
    const reply = asObject(await vm.execute("query-version"), "query-version");
    const { major } = asObject(reply["qemu"], "query-version");
    expect(majorOf[version]).toContain(Number(major));
  });
}
