/* SPDX-License-Identifier: GPL-2.0 */
/*
 * vhost_task came with 6.4 (e297cd54b3f8, "vhost_task: Allow vhost layer to use copy_process")
 * and got its present form in 6.10. Before it: a kernel thread that borrows the owner's address
 * space and joins its cgroups.
 */
#ifndef _COMPAT_LINUX_SCHED_VHOST_TASK_H
#define _COMPAT_LINUX_SCHED_VHOST_TASK_H

#include <linux/version.h>

#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 10, 0)
#include_next <linux/sched/vhost_task.h>
#elif LINUX_VERSION_CODE >= KERNEL_VERSION(6, 4, 0)
#error "vhost_task of 6.4 to 6.9 is not supported: use 6.1, 6.12 or newer"
#else

#include <linux/cgroup.h>
#include <linux/completion.h>
#include <linux/err.h>
#include <linux/kthread.h>
#include <linux/sched/mm.h>
#include <linux/sched/signal.h>
#include <linux/slab.h>

/**
 * struct vhost_task - a thread on behalf of a process
 * @task: kernel thread
 * @mm: the process's address space, mmgrab()ed
 * @fn: serves; false when there was nothing to do
 * @data: for @fn
 */
struct vhost_task {
	struct task_struct *task;
	struct mm_struct *mm;
	bool (*fn)(void *data);
	void *data;
};

static inline int viovm_compat_vhost_task_fn(void *data)
{
	struct vhost_task *vtsk = data;
	bool live = mmget_not_zero(vtsk->mm);

	/* as a real vhost_task, it can be got out of a page fault that userfaultfd holds */
	allow_kernel_signal(SIGKILL);
	if (live)
		kthread_use_mm(vtsk->mm);
	for (;;) {
		set_current_state(TASK_INTERRUPTIBLE);
		if (kthread_should_stop()) {
			__set_current_state(TASK_RUNNING);
			break;
		}
		/* the owner is exiting: its files' release stops this thread */
		if (!live || !vtsk->fn(vtsk->data))
			schedule();
	}
	if (live) {
		kthread_unuse_mm(vtsk->mm);
		mmput(vtsk->mm);
	}
	return 0;
}

static inline struct vhost_task *vhost_task_create(bool (*fn)(void *),
						   void (*handle_kill)(void *), void *arg,
						   const char *name)
{
	struct vhost_task *vtsk = kzalloc(sizeof(*vtsk), GFP_KERNEL);

	if (!vtsk)
		return ERR_PTR(-ENOMEM);
	vtsk->fn = fn;
	vtsk->data = arg;
	vtsk->task = kthread_create(viovm_compat_vhost_task_fn, vtsk, "%s", name);
	if (IS_ERR(vtsk->task)) {
		struct vhost_task *err = ERR_CAST(vtsk->task);

		kfree(vtsk);
		return err;
	}
	vtsk->mm = current->mm;
	mmgrab(vtsk->mm);
	/* best effort, as accounting is: a kernel thread works in any cgroup */
	cgroup_attach_task_all(current, vtsk->task);
	return vtsk;
}

static inline void vhost_task_start(struct vhost_task *vtsk)
{
	wake_up_process(vtsk->task);
}

static inline void vhost_task_wake(struct vhost_task *vtsk)
{
	wake_up_process(vtsk->task);
}

static inline void vhost_task_stop(struct vhost_task *vtsk)
{
	/* nothing that it still does is for anybody */
	send_sig(SIGKILL, vtsk->task, 1);
	kthread_stop(vtsk->task);
	mmdrop(vtsk->mm);
	kfree(vtsk);
}
#endif

#endif /* _COMPAT_LINUX_SCHED_VHOST_TASK_H */
