import { describe, expect, it } from "vitest";
import { Refused, Unreachable } from "../src/diagnoser";
import { describeFailure } from "../src/failures";
import { refusal } from "../src/server";

describe("describeFailure", () => {
  it.each([
    [401, "key"],
    [413, "large"],
    [415, "kind"],
    [422, "damaged"],
    [503, "busy"],
    [418, "other"],
  ])("of status %i is %s", (status, kind) => {
    expect(describeFailure(new Refused(status, "seen", "expected")).kind).toBe(kind);
  });

  it("of no connection needs no details", () => {
    expect(describeFailure(new Unreachable("predict"))).toEqual({ kind: "network", detail: null });
  });

  it("of a bug of ours keeps what it says", () => {
    expect(describeFailure(new TypeError("x is undefined"))).toEqual({ kind: "other", detail: "TypeError: x is undefined" });
  });
});

describe("refusal", () => {
  it("is what the service says", () => {
    const said = refusal(503, JSON.stringify({ error: "a full queue", expected: "some patience" }), "7");
    expect(said).toMatchObject({ status: 503, seen: "a full queue", expected: "some patience", retryAfterS: 7 });
  });

  it.each(["<html>Bad gateway</html>", "{}", "null"])("of a proxy is its status: %s", (body) => {
    expect(refusal(502, body, null)).toMatchObject({ status: 502, seen: "HTTP status 502", retryAfterS: null });
  });

  it("does not wait until a date", () => {
    expect(refusal(503, "", "Wed, 21 Oct 2026 07:28:00 GMT").retryAfterS).toBeNull();
  });
});
