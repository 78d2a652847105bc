from django.contrib import admin
from unfold.admin import TabularInline

from events.admin import ReadOnlyAdmin
from orders.models import Order, OrderItem


class OrderItemInline(TabularInline):
    model = OrderItem
    fields = ("product_id", "quantity", "price")
    can_delete = False


@admin.register(Order)
class OrderAdmin(ReadOnlyAdmin):
    """Orders are for looking at: nothing may change one without its event."""

    list_display = ("id", "user", "status", "total_amount", "created_at")
    list_filter = ("status",)
    list_select_related = ("user",)
    search_fields = ("=id", "=user__username")
    search_help_text = "An order's id or a user's name"
    ordering = ("-id",)
    fields = (("id", "user"), ("status", "total_amount"), ("created_at", "last_sequence"))
    inlines = (OrderItemInline,)
