// SPDX-License-Identifier: GPL-2.0
/*
 * Does to a kernel what kernels die of, when it is told to:
 *
 *     echo deadlock >/sys/module/fault/parameters/cause
 *
 * It is loaded only in guests of the lab, whose dumps are asked afterwards what happened.
 */
#include <linux/delay.h>
#include <linux/kthread.h>
#include <linux/list.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/rwsem.h>
#include <linux/semaphore.h>
#include <linux/slab.h>
#include <linux/spinlock.h>

MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("what kernels die of");

static DEFINE_MUTEX(fault_first);
static DEFINE_MUTEX(fault_second);
static DECLARE_RWSEM(fault_tree);
static DECLARE_RWSEM(fault_shared);
static DEFINE_SPINLOCK(fault_lock);
static struct semaphore fault_slots;
static struct kmem_cache *fault_requests;

struct fault_request {
	struct list_head list;
	int (*done)(struct fault_request *request);
	unsigned long serial;
	char payload[480];
};

/* A cache whose objects have a constructor is not merged with others. */
static void fault_request_construct(void *object)
{
	memset(object, 0, sizeof(struct fault_request));
}

static int fault_request_done(struct fault_request *request)
{
	return 0;
}

static noinline int fault_leak(void)
{
	unsigned long serial;

	for (serial = 0; serial < 160000; serial++) {
		struct fault_request *request = kmem_cache_alloc(fault_requests, GFP_KERNEL);

		if (!request)
			return -ENOMEM;
		request->done = fault_request_done;
		request->serial = serial;
	}
	return 0;
}

static int fault_forward(void *unused)
{
	mutex_lock(&fault_first);
	msleep(500);
	mutex_lock(&fault_second);
	return 0;
}

static int fault_backward(void *unused)
{
	mutex_lock(&fault_second);
	msleep(500);
	mutex_lock(&fault_first);
	return 0;
}

/* Holds the tree and a slot while it waits for what is dead already. */
static int fault_writer(void *unused)
{
	down_write(&fault_tree);
	down(&fault_slots);
	msleep(1000);
	mutex_lock(&fault_first);
	return 0;
}

static int fault_reader(void *unused)
{
	msleep(500);
	down_read(&fault_tree);
	return 0;
}

/* Has what readers may share, and a writer waits for it. */
static int fault_keeper(void *unused)
{
	down_read(&fault_shared);
	msleep(1000);
	mutex_lock(&fault_first);
	return 0;
}

static int fault_changer(void *unused)
{
	msleep(500);
	down_write(&fault_shared);
	return 0;
}

static int fault_user(void *unused)
{
	msleep(500);
	down(&fault_slots);
	return 0;
}

static int fault_deadlock(void)
{
	kthread_run(fault_forward, NULL, "fault_forward");
	kthread_run(fault_backward, NULL, "fault_backward");
	kthread_run(fault_writer, NULL, "fault_writer");
	kthread_run(fault_reader, NULL, "fault_reader");
	kthread_run(fault_user, NULL, "fault_user");
	kthread_run(fault_keeper, NULL, "fault_keeper");
	kthread_run(fault_changer, NULL, "fault_changer");
	return 0;
}

static noinline __noclone int fault_oops(struct fault_request *request)
{
	return request->done(request);
}

static int fault_spin(void *unused)
{
	spin_lock(&fault_lock);
	for (;;)
		cpu_relax();
	return 0;
}

/* Begins to spin so late that the watchdog finds the other first. */
static int fault_eager(void *unused)
{
	msleep(4000);
	spin_lock(&fault_lock);
	return 0;
}

static int fault_corrupt(void *unused)
{
	static LIST_HEAD(queue);
	static struct fault_request request, other;

	list_add(&request.list, &queue);
	request.list.prev = &other.list;
	list_add_tail(&other.list, &request.list);
	return 0;
}

/* What is left of a stack is used up by frames that the compiler cannot make into a loop. */
static noinline int fault_recurse(volatile int *depth)
{
	volatile char frame[256];

	frame[0] = ++*depth;
	return *depth < 1000000 ? fault_recurse(depth) + frame[0] : 0;
}

static int fault_set(const char *text, const struct kernel_param *param)
{
	int depth = 0;

	if (sysfs_streq(text, "leak"))
		return fault_leak();
	if (sysfs_streq(text, "deadlock"))
		return fault_deadlock();
	if (sysfs_streq(text, "oops"))
		return fault_oops(NULL);
	if (sysfs_streq(text, "spin"))
		return PTR_ERR_OR_ZERO(kthread_run(fault_eager, NULL, "fault_eager")) ?:
		       PTR_ERR_OR_ZERO(kthread_run(fault_spin, NULL, "fault_spin"));
	if (sysfs_streq(text, "corrupt"))
		return PTR_ERR_OR_ZERO(kthread_run(fault_corrupt, NULL, "fault_corrupt"));
	if (sysfs_streq(text, "recurse"))
		return fault_recurse(&depth);
	return -EINVAL;
}

static const struct kernel_param_ops fault_operations = { .set = fault_set };
module_param_cb(cause, &fault_operations, NULL, 0200);

static int __init fault_init(void)
{
	sema_init(&fault_slots, 1);
	fault_requests = kmem_cache_create("fault_request", sizeof(struct fault_request), 0, 0,
					   fault_request_construct);
	return fault_requests ? 0 : -ENOMEM;
}

/* Without an exit it stays: its threads never end. */
module_init(fault_init);
