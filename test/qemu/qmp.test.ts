import { expect, test } from "bun:test";
import { createServer, type Socket } from "node:net";
import { TemporaryFolder } from "../kit/temporary_folder.ts";
import { Qmp, QmpError } from "./qmp.ts";

const GREETING = '{"QMP": {"version": {}, "capabilities": []}}\r\n';

interface FakeServer extends AsyncDisposable {
  readonly path: string;
}

/** A QMP server that answers each command with what `answer` makes of it; nothing if undefined. */
async function fakeServer(
  greeting: string,
  answer: (command: string, id: number) => string | undefined,
): Promise<FakeServer> {
  const folder = new TemporaryFolder();
  const path = folder.file("qmp");
  const clients = new Set<Socket>();
  const server = createServer((client) => {
    clients.add(client);
    client.on("error", () => {});
    client.write(greeting);
    client.setEncoding("utf8");
    client.on("data", (text: string) => {
      for (const line of text.trim().split("\n")) {
        const { execute, id } = JSON.parse(line) as { execute: string; id: number };
        const reply = answer(execute, id);
        if (reply === "close") client.destroy();
        else if (reply !== undefined) client.write(reply);
      }
    });
  });
  const listening = Promise.withResolvers<void>();
  server.listen(path, listening.resolve);
  await listening.promise;
  return {
    path,
    async [Symbol.asyncDispose]() {
      for (const client of clients) client.destroy();
      await new Promise<void>((resolve) => {
        server.close(() => resolve());
      });
      folder[Symbol.dispose]();
    },
  };
}

const ok = (id: number): string => `{"return": {}, "id": ${id}}\n`;

test("Qmp.execute() returns the reply of its own command", async () => {
  await using server = await fakeServer(
    GREETING,
    (command, id) =>
      // An event before the reply, and the reply in a piece of its own.
      `{"event": "STOP"}\n{"return": "${command}", "id": ${id}}\n`,
  );
  await using qmp = await Qmp.connect(server.path);
  expect(await Promise.all([qmp.execute("a"), qmp.execute("b")])).toEqual(["a", "b"]);
});

test("Qmp.execute() rejects with QEMU's words when a command is refused", async () => {
  await using server = await fakeServer(GREETING, (command, id) =>
    command === "qmp_capabilities" ? ok(id) : `{"error": {"desc": "not now"}, "id": ${id}}\n`,
  );
  await using qmp = await Qmp.connect(server.path, { name: "vm1" });
  await expect(qmp.execute("stop")).rejects.toThrow(
    new QmpError("Cannot run stop on vm1: not now"),
  );
});

test("Qmp.execute(), waitEvent() and connect() end when QEMU stays silent", async () => {
  await using server = await fakeServer(GREETING, (command, id) =>
    command === "qmp_capabilities" ? ok(id) : undefined,
  );
  await using qmp = await Qmp.connect(server.path, { name: "vm1" });
  await expect(qmp.execute("stop", {}, 20)).rejects.toThrow(
    "Cannot run stop on vm1: no answer within 20 ms",
  );
  await expect(qmp.waitEvent("STOP", 20)).rejects.toThrow(
    "Cannot go on with vm1: no event STOP within 20 ms",
  );
  await using mute = await fakeServer("", () => undefined);
  await expect(Qmp.connect(mute.path, { timeoutMs: 50 })).rejects.toThrow(/no QMP greeting within/);
  await expect(Qmp.connect(`${mute.path}-not`, { timeoutMs: 50 })).rejects.toThrow(/no QMP socket/);
});

test("Qmp.execute() and waitEvent() reject when QEMU goes away", async () => {
  await using server = await fakeServer(GREETING, (command, id) =>
    command === "qmp_capabilities" ? ok(id) : "close",
  );
  await using qmp = await Qmp.connect(server.path, { name: "vm1" });
  const waits = [qmp.waitEvent("STOP", 5_000), qmp.execute("quit")];
  const closed = "Cannot talk to vm1: QMP was closed, must stay open";
  expect(await Promise.allSettled(waits)).toEqual(
    waits.map(() => ({ status: "rejected", reason: new QmpError(closed) })),
  );
  await expect(qmp.execute("stop")).rejects.toThrow(closed);
});

test("Qmp.waitEvent() takes the first match out of the queue and leaves the others", async () => {
  await using server = await fakeServer(GREETING, (_, id) =>
    ["setup", "active", "completed"]
      .map((status) => `{"event": "MIGRATION", "data": {"status": "${status}"}}\n`)
      .join("")
      .concat(ok(id)),
  );
  await using qmp = await Qmp.connect(server.path);
  const event = await qmp.waitEvent("MIGRATION", 1_000, ({ data }) => data["status"] === "active");
  expect(event.data).toEqual({ status: "active" });
  expect(qmp.events.map(({ data }) => data["status"])).toEqual(["setup", "completed"]);
  qmp.dropEvents("MIGRATION");
  expect(qmp.events).toEqual([]);
});
