/**
 * The capability switchover-ack: whether a destination permits its source's final phase.
 *
 * @module
 */
import { hasUnaskedSwitchoverAck } from "../wire/machine_type.ts";

/** How capability switchover-ack is used: by the machine type, not at all, or as up to QEMU 11.0. */
export type SwitchoverAck = boolean | "legacy";

/** Whether one acknowledgement is due without a device that asks for it. */
export function expectsSwitchoverAck(option: SwitchoverAck, machine: string): boolean {
  return option === "legacy" || (option && hasUnaskedSwitchoverAck(machine));
}

/**
 * Checks an option.
 *
 * @throws {TypeError} for anything else.
 */
export function checkSwitchoverAck(option: SwitchoverAck): void {
  if (typeof option === "boolean" || option === "legacy") return;
  throw new TypeError(
    `Cannot use switchover-ack ${String(option)}: must be true, false or "legacy"`,
  );
}
