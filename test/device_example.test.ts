import { expect, test } from "bun:test";
import { ExampleProgram } from "./kit/example_program.ts";

test("examples/device_state: sends devices from files of one process to those of another", async () => {
  const args = ["--devices", "3", "--size", "3M", "--ram", "2M", "--channels", "2"];
  await using program = new ExampleProgram("device_state", args);
  const { status, stdout, stderr } = await program.end();
  expect([status, stderr]).toEqual([0, ""]);
  expect(stdout).toContain("0000:00:05.0/vfio 2  3.00 MiB        4");
  expect(stdout).toMatch(/switchover of 9\.00 MiB took [\d.]+ s/);
  expect(stdout).toContain("all 3 copies are equal");
});

test("examples/device_state: a terminated sender ends both processes and removes its files", async () => {
  const args = ["--devices", "2", "--size", "64M", "--ram", "2M"];
  await using program = new ExampleProgram("device_state", args);
  const line = await program.firstLine();
  const directory = line.slice(line.lastIndexOf(" ") + 1);
  await Bun.sleep(300);
  program.kill("SIGTERM");
  const { status, stderr } = await program.end();
  expect(status).toBe(1);
  expect(stderr).toContain("cancelled (SIGTERM)");
  expect(await Bun.file(`${directory}/state0`).exists()).toBe(false);
});
