// Made by `python -m fixtures.vectors` from phase/jobs/receipt.py.

/** @type {import('./shape.js').Schema} */
export const STATEMENT = {
  "$schema": "https://json-schema.org/draft/2020-12/schema",
  "$id": "https://phase.dev/schemas/statement-v1.json",
  "$ref": "#/$defs/Statement",
  "$defs": {
    "Statement": {
      "type": "object",
      "properties": {
        "_type": {
          "enum": [
            "https://in-toto.io/Statement/v1"
          ]
        },
        "subject": {
          "type": "array",
          "items": {
            "$ref": "#/$defs/Subject"
          },
          "maxItems": 1,
          "minItems": 1
        },
        "predicateType": {
          "enum": [
            "https://phase.dev/receipt/v1"
          ]
        },
        "predicate": {
          "$ref": "#/$defs/Receipt"
        }
      },
      "required": [
        "_type",
        "subject",
        "predicateType",
        "predicate"
      ]
    },
    "Subject": {
      "type": "object",
      "properties": {
        "name": {
          "enum": [
            "stdout"
          ]
        },
        "digest": {
          "$ref": "#/$defs/Digest"
        }
      },
      "required": [
        "name",
        "digest"
      ]
    },
    "Digest": {
      "type": "object",
      "properties": {
        "sha256": {
          "type": "string",
          "maxLength": 64,
          "pattern": "^[0-9a-f]{64}$"
        }
      },
      "required": [
        "sha256"
      ]
    },
    "Receipt": {
      "type": "object",
      "properties": {
        "job": {
          "$ref": "#/$defs/JobRef"
        },
        "module": {
          "$ref": "#/$defs/Content"
        },
        "args": {
          "type": "array",
          "items": {
            "type": "string"
          }
        },
        "env": {
          "type": "object",
          "additionalProperties": {
            "type": "string"
          }
        },
        "stdin": {
          "$ref": "#/$defs/Content"
        },
        "stdout": {
          "$ref": "#/$defs/Content"
        },
        "stderr": {
          "$ref": "#/$defs/Content"
        },
        "limits": {
          "$ref": "#/$defs/Limits"
        },
        "status": {
          "anyOf": [
            {
              "$ref": "#/$defs/Exited"
            },
            {
              "$ref": "#/$defs/Trapped"
            },
            {
              "$ref": "#/$defs/LimitHit"
            },
            {
              "$ref": "#/$defs/Rejected"
            },
            {
              "$ref": "#/$defs/Killed"
            }
          ],
          "discriminator": {
            "propertyName": "kind",
            "mapping": {
              "exited": "#/$defs/Exited",
              "trapped": "#/$defs/Trapped",
              "limit": "#/$defs/LimitHit",
              "rejected": "#/$defs/Rejected",
              "killed": "#/$defs/Killed"
            }
          }
        },
        "fuel_used": {
          "anyOf": [
            {
              "type": "integer",
              "minimum": 0,
              "maximum": 9007199254740991
            },
            {
              "type": "null"
            }
          ]
        },
        "memory_bytes": {
          "anyOf": [
            {
              "type": "integer",
              "minimum": 0,
              "maximum": 9007199254740991
            },
            {
              "type": "null"
            }
          ]
        },
        "engine": {
          "$ref": "#/$defs/EngineRef"
        },
        "started": {
          "type": "string",
          "maxLength": 24,
          "pattern": "^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\\.[0-9]{3}Z$"
        },
        "finished": {
          "type": "string",
          "maxLength": 24,
          "pattern": "^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\\.[0-9]{3}Z$"
        },
        "wall_ms": {
          "type": "number",
          "minimum": 0
        },
        "node": {
          "type": "string",
          "maxLength": 64,
          "pattern": "^[0-9a-f]{64}$"
        },
        "cage": {
          "type": "array",
          "items": {
            "type": "string",
            "maxLength": 128,
            "minLength": 1
          },
          "default": []
        },
        "seed": {
          "anyOf": [
            {
              "type": "integer",
              "minimum": 0,
              "maximum": 9007199254740991
            },
            {
              "type": "null"
            }
          ],
          "default": null
        },
        "requester": {
          "anyOf": [
            {
              "type": "string",
              "maxLength": 64,
              "pattern": "^[0-9a-f]{64}$"
            },
            {
              "type": "null"
            }
          ],
          "default": null
        },
        "attempt": {
          "anyOf": [
            {
              "type": "integer",
              "minimum": 1,
              "maximum": 9007199254740991
            },
            {
              "type": "null"
            }
          ],
          "default": null
        },
        "inputs": {
          "type": "object",
          "additionalProperties": {
            "$ref": "#/$defs/Content"
          },
          "default": {}
        },
        "outputs": {
          "type": "object",
          "additionalProperties": {
            "$ref": "#/$defs/Content"
          },
          "default": {}
        },
        "directories": {
          "type": "array",
          "items": {
            "$ref": "#/$defs/DirectoryRef"
          },
          "default": []
        }
      },
      "required": [
        "job",
        "module",
        "args",
        "env",
        "stdin",
        "stdout",
        "stderr",
        "limits",
        "status",
        "fuel_used",
        "memory_bytes",
        "engine",
        "started",
        "finished",
        "wall_ms",
        "node"
      ]
    },
    "JobRef": {
      "type": "object",
      "properties": {
        "id": {
          "type": "string",
          "maxLength": 128,
          "minLength": 1
        },
        "nonce": {
          "type": "string",
          "maxLength": 128
        }
      },
      "required": [
        "id",
        "nonce"
      ]
    },
    "Content": {
      "type": "object",
      "properties": {
        "sha256": {
          "type": "string",
          "maxLength": 64,
          "pattern": "^[0-9a-f]{64}$"
        },
        "length": {
          "type": "integer",
          "minimum": 0,
          "maximum": 9007199254740991
        }
      },
      "required": [
        "sha256",
        "length"
      ]
    },
    "Limits": {
      "type": "object",
      "properties": {
        "fuel": {
          "type": "integer",
          "minimum": 1,
          "maximum": 9007199254740991,
          "default": 20000000000
        },
        "wall_seconds": {
          "type": "number",
          "exclusiveMinimum": 0,
          "maximum": 86400,
          "default": 30.0
        },
        "memory_bytes": {
          "type": "integer",
          "minimum": 0,
          "maximum": 4294967296,
          "default": 268435456
        },
        "output_bytes": {
          "type": "integer",
          "minimum": 0,
          "maximum": 1073741824,
          "default": 16777216
        },
        "stdin_bytes": {
          "type": "integer",
          "minimum": 0,
          "maximum": 1073741824,
          "default": 16777216
        },
        "module_bytes": {
          "type": "integer",
          "minimum": 0,
          "maximum": 1073741824,
          "default": 33554432
        },
        "compile_bytes": {
          "type": "integer",
          "minimum": 0,
          "maximum": 4294967296,
          "default": 1610612736
        },
        "scratch_bytes": {
          "type": "integer",
          "minimum": 0,
          "maximum": 1073741824,
          "default": 0
        }
      },
      "required": []
    },
    "Exited": {
      "type": "object",
      "properties": {
        "kind": {
          "enum": [
            "exited"
          ]
        },
        "code": {
          "type": "integer",
          "minimum": 0,
          "maximum": 4294967295
        }
      },
      "required": [
        "kind",
        "code"
      ]
    },
    "Trapped": {
      "type": "object",
      "properties": {
        "kind": {
          "enum": [
            "trapped"
          ]
        },
        "reason": {
          "type": "string"
        }
      },
      "required": [
        "kind",
        "reason"
      ]
    },
    "LimitHit": {
      "type": "object",
      "properties": {
        "kind": {
          "enum": [
            "limit"
          ]
        },
        "limit": {
          "enum": [
            "fuel",
            "memory",
            "output",
            "stdin",
            "wall"
          ]
        }
      },
      "required": [
        "kind",
        "limit"
      ]
    },
    "Rejected": {
      "type": "object",
      "properties": {
        "kind": {
          "enum": [
            "rejected"
          ]
        },
        "reason": {
          "type": "string"
        }
      },
      "required": [
        "kind",
        "reason"
      ]
    },
    "Killed": {
      "type": "object",
      "properties": {
        "kind": {
          "enum": [
            "killed"
          ]
        },
        "signal": {
          "type": "integer",
          "minimum": 0,
          "maximum": 255
        },
        "reason": {
          "type": "string",
          "default": ""
        }
      },
      "required": [
        "kind",
        "signal"
      ]
    },
    "EngineRef": {
      "type": "object",
      "properties": {
        "name": {
          "enum": [
            "wasmtime"
          ]
        },
        "version": {
          "type": "string"
        },
        "arch": {
          "type": "string"
        }
      },
      "required": [
        "name",
        "version",
        "arch"
      ]
    },
    "DirectoryRef": {
      "type": "object",
      "properties": {
        "guest": {
          "type": "string"
        },
        "writable": {
          "type": "boolean"
        }
      },
      "required": [
        "guest",
        "writable"
      ]
    }
  }
};
