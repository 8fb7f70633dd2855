/** Checks JSON against the part of JSON Schema that Phase's schemas use, and keeps what is known of it. */
import { MalformedError, UsageError } from './errors.js';
import { JsonNumber } from './json.js';

/** @typedef {{[keyword: string]: any}} Schema */

const KEYWORDS = new Set([
  '$schema', '$id', '$defs', '$ref', 'anyOf', 'discriminator', 'enum', 'type', 'properties', 'required', 'default',
  'additionalProperties', 'items', 'minItems', 'maxItems', 'pattern', 'minLength', 'maxLength', 'minimum', 'maximum',
  'exclusiveMinimum', 'title', 'description',
]);

/**
 * Checks a value, and gives it as plain values: fields that are not known are left out, those that may be absent have
 * their defaults.
 *
 * @param {Schema} schema the document
 * @param {import('./json.js').JsonValue} value
 * @returns {any}
 * @throws {MalformedError} it is of another shape; says where
 */
export function take(schema, value) {
  return new Taker(schema).any(schema, value, '$');
}

class Taker {
  /** @param {Schema} root */
  constructor(root) {
    this.root = root;
  }

  /** @param {string} path @param {string} why @returns {never} */
  fail(path, why) {
    throw new MalformedError(`${path} ${why}`);
  }

  /** @param {Schema} schema @param {any} value @param {string} path @returns {any} */
  any(schema, value, path) {
    for (const word of Object.keys(schema)) {
      if (!KEYWORDS.has(word)) throw new UsageError(`this SDK does not know the schema's keyword ${word}`);
    }
    if (schema.$ref !== undefined) {
      return this.any(this.root.$defs[schema.$ref.replace('#/$defs/', '')], value, path);
    }
    if (schema.anyOf !== undefined) return this.choice(schema, value, path);
    if (schema.enum !== undefined) {
      if (!schema.enum.includes(value)) this.fail(path, 'has a value that is not known');
      return value;
    }
    switch (schema.type) {
      case 'object': return this.object(schema, value, path);
      case 'array': return this.list(schema, value, path);
      case 'string': return this.text(schema, value, path);
      case 'integer': return this.integer(schema, value, path);
      case 'number': return this.number(schema, value, path);
      case 'boolean': return typeof value === 'boolean' ? value : this.fail(path, 'is not true or false');
      case 'null': return value === null ? null : this.fail(path, 'is not null');
      default: throw new UsageError(`this SDK does not know the schema's type ${schema.type}`);
    }
  }

  /** @param {Schema} schema @param {any} value @param {string} path */
  choice(schema, value, path) {
    if (schema.discriminator === undefined) {
      const nothing = schema.anyOf.some((/** @type {Schema} */ each) => each.type === 'null');
      const others = schema.anyOf.filter((/** @type {Schema} */ each) => each.type !== 'null');
      if (others.length !== 1) throw new UsageError('this SDK does not know such a choice in a schema');
      return nothing && value === null ? null : this.any(others[0], value, path);
    }
    const { propertyName, mapping } = schema.discriminator;
    const kind = value instanceof Map ? value.get(propertyName) : undefined;
    if (typeof kind !== 'string' || !Object.hasOwn(mapping, kind)) this.fail(path, `has no ${propertyName} that is known`);
    return this.any({ $ref: mapping[kind] }, value, path);
  }

  /** @param {Schema} schema @param {any} value @param {string} path */
  object(schema, value, path) {
    if (!(value instanceof Map)) this.fail(path, 'is not an object');
    /** @type {Record<string, any>} */
    const found = Object.create(null);
    if (schema.properties === undefined) {
      for (const [name, inner] of value) found[name] = this.any(schema.additionalProperties, inner, `${path}.*`);
      return found;
    }
    for (const [name, inner] of Object.entries(schema.properties)) {
      if (value.has(name)) found[name] = this.any(inner, value.get(name), `${path}.${name}`);
      else if (schema.required.includes(name)) this.fail(path, `has no ${name}`);
      else found[name] = structuredClone(inner.default);
    }
    return found;
  }

  /** @param {Schema} schema @param {any} value @param {string} path */
  list(schema, value, path) {
    if (!Array.isArray(value)) this.fail(path, 'is not a list');
    if (value.length < (schema.minItems ?? 0) || value.length > (schema.maxItems ?? Infinity)) {
      this.fail(path, `has ${value.length} entries`);
    }
    return value.map((inner, number) => this.any(schema.items, inner, `${path}[${number}]`));
  }

  /** @param {Schema} schema @param {any} value @param {string} path */
  text(schema, value, path) {
    if (typeof value !== 'string') this.fail(path, 'is not a text');
    let length = 0;
    for (const _ of value) length += 1;
    if (length < (schema.minLength ?? 0) || length > (schema.maxLength ?? Infinity)) {
      this.fail(path, `has ${length} characters`);
    }
    if (schema.pattern !== undefined && !new RegExp(schema.pattern, 'u').test(value)) this.fail(path, 'has another form');
    return value;
  }

  /** @param {Schema} schema @param {any} value @param {string} path */
  integer(schema, value, path) {
    if (!(value instanceof JsonNumber) || !value.integer) this.fail(path, 'is not an integer');
    const found = Number(value.text);
    if (!Number.isSafeInteger(found)) this.fail(path, 'is above 2^53 - 1');
    return this.within(schema, found, path);
  }

  /** @param {Schema} schema @param {any} value @param {string} path */
  number(schema, value, path) {
    if (!(value instanceof JsonNumber)) this.fail(path, 'is not a number');
    return this.within(schema, Number(value.text), path);
  }

  /** @param {Schema} schema @param {number} found @param {string} path */
  within(schema, found, path) {
    const above = found >= (schema.minimum ?? -Infinity) && !(found <= schema.exclusiveMinimum);
    if (!Number.isFinite(found) || !above || found > (schema.maximum ?? Infinity)) this.fail(path, 'is out of range');
    return found === 0 ? 0 : found;
  }
}
