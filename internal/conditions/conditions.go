// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package conditions

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// New is a condition without a time: a Set or a writer gives it one when it is written.
func New(kind string, status metav1.ConditionStatus, reason, message string, generation int64) metav1.Condition {
	return metav1.Condition{
		Type: kind, Status: status, Reason: reason, Message: forCondition(message), ObservedGeneration: generation,
	}
}

// Is is the status of a condition that is so, or is not.
func Is(so bool) metav1.ConditionStatus {
	if so {
		return metav1.ConditionTrue
	}
	return metav1.ConditionFalse
}

// Set is the conditions of one object, or of a part of one. What is not set stays as it was: it may be somebody else's.
type Set struct {
	generation int64
	list       []metav1.Condition
}

// For begins with the conditions that are there, and sets those of a generation.
func For(generation int64, existing []metav1.Condition) *Set {
	return &Set{generation: generation, list: slices.Clone(existing)}
}

// Set says a condition. The time of its last transition stays while its status does.
func (s *Set) Set(kind string, status metav1.ConditionStatus, reason, message string) {
	s.Put(New(kind, status, reason, message, s.generation))
}

// True says that a condition is.
func (s *Set) True(kind, reason, message string) { s.Set(kind, metav1.ConditionTrue, reason, message) }

// False says that a condition is not.
func (s *Set) False(kind, reason, message string) {
	s.Set(kind, metav1.ConditionFalse, reason, message)
}

// Put says a condition that New made.
func (s *Set) Put(c metav1.Condition) { meta.SetStatusCondition(&s.list, c) }

// Remove takes a condition back.
func (s *Set) Remove(kind string) { meta.RemoveStatusCondition(&s.list, kind) }

// Get finds a condition; nil if it is not there.
func (s *Set) Get(kind string) *metav1.Condition { return meta.FindStatusCondition(s.list, kind) }

// IsTrue tells whether a condition is there and True.
func (s *Set) IsTrue(kind string) bool { return meta.IsStatusConditionTrue(s.list, kind) }

// List is what a status is to hold.
func (s *Set) List() []metav1.Condition { return s.list }

// OfPod finds a condition of a pod; nil if it is not there.
func OfPod(pod *corev1.Pod, kind corev1.PodConditionType) *corev1.PodCondition {
	for i := range pod.Status.Conditions {
		if pod.Status.Conditions[i].Type == kind {
			return &pod.Status.Conditions[i]
		}
	}
	return nil
}

// SetOfPod says a condition of a pod, and changes nothing else of it.
func SetOfPod(pod *corev1.Pod, kind corev1.PodConditionType, status corev1.ConditionStatus, reason, message string) {
	now, was := corev1.PodCondition{Type: kind}, OfPod(pod, kind)
	if was != nil {
		now = *was
	}
	if now.Status != status {
		now.LastTransitionTime = metav1.Now()
	}
	now.Status, now.Reason, now.Message = status, reason, Note(message) // kubectl describe shows it as an Event only
	if was != nil {
		*was = now
	} else {
		pod.Status.Conditions = append(pod.Status.Conditions, now)
	}
}
