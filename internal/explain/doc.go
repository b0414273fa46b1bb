// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

// Package explain says what becomes of a connection or a request, and which policy decides, as the proxies would. It
// works on the model alone, so it never asks a proxy; what it can't know (expressions in CEL) it says.
package explain
