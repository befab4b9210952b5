import { expect, test } from "bun:test";
import { resolveCompression } from "../lib/codec/registry.ts";
import { rehearseLoad, rehearseSave } from "../lib/device/device_rehearsal.ts";
import { warmUpReceiver, warmUpSender } from "../lib/rehearsal/warm_up.ts";
import { SessionControl } from "../lib/sync/session_control.ts";
import { waysHere } from "./codec/codec_pages.ts";
import { resourcesNow } from "./kit/resources.ts";

const running = new SessionControl();

for (const { method, engine } of waysHere()) {
  test(`rehearsals of ${method}/${engine ?? "raw"} end without an error and leave no descriptor`, () => {
    const before = resourcesNow().descriptors;
    for (const pageSize of [4096, 65_536]) {
      const compression = { method, engine };
      const encode = resolveCompression({ method }, "encode", pageSize);
      const decode = resolveCompression(compression, "decode", pageSize);
      warmUpSender({ pageSize, compression: encode, devices: true }, running);
      warmUpReceiver({ pageSize, compression: decode, devices: true }, running);
    }
    expect(resourcesNow().descriptors).toEqual(before);
  });
}

test("rehearsals of save and load threads end without an error, and when they are aborted", () => {
  const { signal } = new AbortController();
  const task = { signal, aborted: false, throwIfAborted: () => {} };
  const aborted = {
    signal,
    aborted: true,
    throwIfAborted: () => {
      throw new Error("aborted");
    },
  };
  for (const rehearse of [rehearseSave, rehearseLoad]) {
    rehearse(task);
    expect(() => rehearse(aborted)).toThrow("aborted");
  }
});
