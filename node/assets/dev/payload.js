// Payloads as a person reads and writes them. A JSON module's travel as the JSON value itself; a binary module's are base64 in JSON
// frames, and most often MessagePack, which is shown and written here as JSON. No network and no page in here.

/** Reads what a person wrote, for a module of this codec: `codec` is "json" or "binary". Throws with a reason when it is no payload. */
export function write(codec, text) {
  const trimmed = text.trim();
  if (codec === "json") return trimmed === "" ? null : JSON.parse(trimmed);
  if (trimmed.startsWith("base64:")) {
    const encoded = trimmed.slice(7).trim();
    atob(encoded);
    return encoded;
  }
  if (trimmed === "") return "";
  return encode64(pack(JSON.parse(trimmed)));
}

/** Shows a payload of a frame. */
export function show(codec, data) {
  if (data === undefined || data === null) return codec === "json" && data === null ? "null" : "";
  if (codec === "json" || typeof data !== "string") return JSON.stringify(data);
  const bytes = decode64(data);
  if (bytes.length === 0) return "nothing";
  const value = unpack(bytes);
  return value === undefined ? `base64:${data} (${bytes.length} bytes)` : JSON.stringify(value, replaceBig);
}

function replaceBig(_key, value) {
  return typeof value === "bigint" ? value.toString() : value;
}

function encode64(bytes) {
  let text = "";
  for (const byte of bytes) text += String.fromCharCode(byte);
  return btoa(text);
}

function decode64(text) {
  return Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
}

/** Writes a JSON value as MessagePack, with names for fields: what serde reads on the other side. */
export function pack(value) {
  const out = [];
  put(out, value);
  return Uint8Array.from(out);
}

function put(out, value) {
  if (value === null || value === undefined) out.push(0xc0);
  else if (typeof value === "boolean") out.push(value ? 0xc3 : 0xc2);
  else if (typeof value === "number") putNumber(out, value);
  else if (typeof value === "string") {
    const bytes = new TextEncoder().encode(value);
    putHead(out, bytes.length, [0xa0, 32], [0xd9, 1], [0xda, 2], [0xdb, 4]);
    for (const byte of bytes) out.push(byte);
  } else if (Array.isArray(value)) {
    putHead(out, value.length, [0x90, 16], null, [0xdc, 2], [0xdd, 4]);
    for (const item of value) put(out, item);
  } else {
    const entries = Object.entries(value);
    putHead(out, entries.length, [0x80, 16], null, [0xde, 2], [0xdf, 4]);
    for (const [key, item] of entries) {
      put(out, key);
      put(out, item);
    }
  }
}

function putHead(out, length, [small, below], one, two, four) {
  if (length < below) out.push(small | length);
  else if (one && length < 0x100) putBytes(out, one[0], 1, length);
  else if (length < 0x10000) putBytes(out, two[0], 2, length);
  else putBytes(out, four[0], 4, length);
}

function putBytes(out, head, size, number) {
  out.push(head);
  for (let shift = size - 1; shift >= 0; shift--) out.push(Math.floor(number / 2 ** (8 * shift)) % 256);
}

// Whole numbers go as integers: serde reads them as floating point too where a field wants that.
function putNumber(out, value) {
  if (Number.isSafeInteger(value) && value >= 0) {
    if (value < 0x80) out.push(value);
    else if (value < 0x100) putBytes(out, 0xcc, 1, value);
    else if (value < 0x10000) putBytes(out, 0xcd, 2, value);
    else if (value < 0x100000000) putBytes(out, 0xce, 4, value);
    else putBytes(out, 0xcf, 8, value);
    return;
  }
  const view = new DataView(new ArrayBuffer(8));
  if (Number.isSafeInteger(value)) {
    if (value >= -32) {
      out.push(0x100 + value);
      return;
    }
    view.setBigInt64(0, BigInt(value));
    out.push(0xd3);
  } else {
    view.setFloat64(0, value);
    out.push(0xcb);
  }
  for (let at = 0; at < 8; at++) out.push(view.getUint8(at));
}

/** Reads one MessagePack value that is all there is; undefined when the bytes are something else. */
export function unpack(bytes) {
  const reader = { bytes, view: new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength), at: 0 };
  try {
    const value = take(reader, 0);
    return reader.at === bytes.length ? value : undefined;
  } catch {
    return undefined;
  }
}

const DEPTH_MAX = 100;

function take(reader, depth) {
  if (depth > DEPTH_MAX) throw new RangeError("too deep");
  const head = number(reader, "getUint8", 1);
  if (head < 0x80) return head;
  if (head < 0x90) return takeMap(reader, head & 0x0f, depth);
  if (head < 0xa0) return takeList(reader, head & 0x0f, depth);
  if (head < 0xc0) return takeText(reader, head & 0x1f);
  if (head >= 0xe0) return head - 0x100;
  switch (head) {
    case 0xc0: return null;
    case 0xc2: return false;
    case 0xc3: return true;
    case 0xc4: return takeBytes(reader, number(reader, "getUint8", 1));
    case 0xc5: return takeBytes(reader, number(reader, "getUint16", 2));
    case 0xc6: return takeBytes(reader, number(reader, "getUint32", 4));
    case 0xca: return number(reader, "getFloat32", 4);
    case 0xcb: return number(reader, "getFloat64", 8);
    case 0xcc: return number(reader, "getUint8", 1);
    case 0xcd: return number(reader, "getUint16", 2);
    case 0xce: return number(reader, "getUint32", 4);
    case 0xcf: return exact(number(reader, "getBigUint64", 8));
    case 0xd0: return number(reader, "getInt8", 1);
    case 0xd1: return number(reader, "getInt16", 2);
    case 0xd2: return number(reader, "getInt32", 4);
    case 0xd3: return exact(number(reader, "getBigInt64", 8));
    case 0xd9: return takeText(reader, number(reader, "getUint8", 1));
    case 0xda: return takeText(reader, number(reader, "getUint16", 2));
    case 0xdb: return takeText(reader, number(reader, "getUint32", 4));
    case 0xdc: return takeList(reader, number(reader, "getUint16", 2), depth);
    case 0xdd: return takeList(reader, number(reader, "getUint32", 4), depth);
    case 0xde: return takeMap(reader, number(reader, "getUint16", 2), depth);
    case 0xdf: return takeMap(reader, number(reader, "getUint32", 4), depth);
    default: throw new RangeError("not MessagePack that we read");
  }
}

function number(reader, read, size) {
  const value = reader.view[read](reader.at);
  reader.at += size;
  return value;
}

function exact(value) {
  const plain = Number(value);
  return Number.isSafeInteger(plain) ? plain : value;
}

function takeBytes(reader, length) {
  if (reader.at + length > reader.bytes.length) throw new RangeError("too short");
  reader.at += length;
  return Array.from(reader.bytes.subarray(reader.at - length, reader.at));
}

function takeText(reader, length) {
  if (reader.at + length > reader.bytes.length) throw new RangeError("too short");
  reader.at += length;
  return new TextDecoder("utf-8", { fatal: true }).decode(reader.bytes.subarray(reader.at - length, reader.at));
}

function takeList(reader, length, depth) {
  const list = [];
  for (let index = 0; index < length; index++) list.push(take(reader, depth + 1));
  return list;
}

// Keys of a map of serde's may be numbers: seats are.
function takeMap(reader, length, depth) {
  const map = {};
  for (let index = 0; index < length; index++) {
    const key = take(reader, depth + 1);
    map[typeof key === "string" ? key : JSON.stringify(key, replaceBig)] = take(reader, depth + 1);
  }
  return map;
}
