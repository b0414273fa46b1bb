// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package controllers_test

import (
	"reflect"

	"sigs.k8s.io/controller-runtime/pkg/client"
)

// newOf makes an empty object of a pointer type.
func newOf[T client.Object]() T {
	var zero T
	return reflect.New(reflect.TypeOf(zero).Elem()).Interface().(T) //nolint:forcetypeassert // by construction
}
